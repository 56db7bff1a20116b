"""A bundle is served in the number type that its variant was evaluated and timed in, and an unverified one is said."""

from dataclasses import replace
from pathlib import Path

import pytest

from qtool.bundle.choose import read_report
from qtool.bundle.settings import measured_dtype
from qtool.bundle.stage import bundle
from qtool.errors import MismatchError, UnverifiedVariant
from qtool.progress import Silent
from qtool.records.evaluation import Evaluation
from qtool.records.report import ReportRow
from qtool.records.variant import Variant
from qtool.report.stage import report
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record


def row_of(run: Path) -> ReportRow:
    return next(row for row in read_report(run).rows if row.variant.name == "w8a16")


def test_the_type_that_was_measured_is_the_one_that_is_served(run: Path) -> None:
    for name in ("baseline", "w8a16"):
        path = run / "evaluations" / name / "arithmetic.json"
        write_record(path, replace(read_json(Evaluation, path), dtype="bfloat16"))
    report(run, command="qtool report")
    made = bundle(run, variant="w8a16", output=run / "out", progress=Silent())
    assert made.runtime.dtype == "bfloat16"


def test_two_types_are_refused(run: Path) -> None:
    row = row_of(run)
    assert measured_dtype(row) == "auto"
    assert row.latency is not None
    mixed = replace(
        row,
        evaluations=tuple(replace(each, dtype="bfloat16") for each in row.evaluations),
        latency=replace(row.latency, dtype="float32"),
    )
    with pytest.raises(MismatchError, match="evaluated on arithmetic in bfloat16, timed in float32"):
        measured_dtype(mixed)


def test_an_unverified_variant_is_bundled_only_where_that_is_said(run: Path) -> None:
    path = run / "variants" / "w8a16" / "variant.json"
    variant = read_json(Variant, path)
    assert variant.verification is not None
    write_record(path, replace(variant, verification=replace(variant.verification, problem="reads otherwise")))
    report(run, command="qtool report")
    assert row_of(run).rejected_because[0] == "unverified: reads otherwise"
    with pytest.raises(UnverifiedVariant, match="--allow-unverified"):
        bundle(run, variant="w8a16", output=run / "out", progress=Silent())
    made = bundle(run, variant="w8a16", output=run / "out", progress=Silent(), allow_unverified=True)
    assert "unverified: reads otherwise" in made.chosen
