"""The three files of a report: joined strictly, complete, self-contained, escaped."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_run import PLAN, evaluation, latency, variant, write_run

from qtool.errors import MismatchError, PlanError, StoreError
from qtool.records.evaluation import Evaluation
from qtool.records.plan import PlannedTask
from qtool.records.report import Report
from qtool.records.variant import Variant
from qtool.report.plots import library
from qtool.report.stage import report
from qtool.report.texts.text_table import text_table
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record


class _Page(HTMLParser):
    """Collects tags, addresses and text; fails on a tag that is closed in the wrong order."""

    VOID = ("meta", "rect", "line", "circle", "polyline", "path", "br", "wbr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src", "action", "srcset") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "demo")


def test_record_round_trips(run: Path):
    written = report(run, command="qtool report demo")
    assert read_json(Report, run / "report.json") == written


def without_library(text: str) -> str:
    """The page without the script that draws its plots: that is not ours, names addresses and asks for none."""
    return text.replace(library.script(), "")


def test_page_is_one_file_without_an_outside_address(run: Path):
    report(run, command="qtool report demo")
    text = (run / "report.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.open == []
    assert all(address.startswith("#") for address in page.addresses), "only into the page itself"
    assert {"svg", "nav", "script"} <= page.tags
    own = re.sub(r'xmlns(:xlink)?="[^"]*"', "", without_library(text))
    assert not re.search(r"https?:|url\((?!#)|@import", own)


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_every_variant_and_task_and_its_n_appear(run: Path, name: str):
    report(run, command="c")
    text = (run / name).read_text(encoding="utf-8").replace("\\", "")
    for word in ("baseline", "w8a16", "w4a16-g64", "arithmetic", "facts", "UNDECIDED", "n 1,000", "needs n 299"):
        assert word in text


def test_a_stricter_level_is_named_with_the_variants_held_to_it(run: Path):
    plain = report(run, command="c")
    assert "[one-sided 95 % bounds: below, above]" in text_table(plain)
    strict = 1 - 2 * 0.05 / 3  # both bounds of a ladder of three rungs
    for task in ("arithmetic", "facts"):
        path = run / "evaluations" / "w4a16" / f"{task}.json"
        found = read_json(Evaluation, path)
        assert found.comparison is not None
        interval = replace(found.comparison.interval, confidence=strict)
        write_record(path, replace(found, comparison=replace(found.comparison, interval=interval)))
    mixed = report(run, command="c")
    assert "[one-sided 95 % bounds: below, above; 98.3 % for w4a16]" in text_table(mixed)
    for name in ("report.html", "report.md"):
        assert "98.3 % for w4a16" in (run / name).read_text(encoding="utf-8")


def test_strings_from_outside_are_escaped(run: Path):
    evil = '<img src=x onerror=alert(1)>"&|`'
    found = evaluation("w8a16", "arithmetic", 0.97)
    assert found.comparison is not None
    found = replace(found, comparison=replace(found.comparison, reason=evil), engine=evil)
    write_record(run / "evaluations" / "w8a16" / "arithmetic.json", found)
    profile = latency("w8a16", 11.0)
    write_record(run / "latency" / "w8a16.json", replace(profile, machine=replace(profile.machine, hardware=evil)))
    report(run, command=evil)
    assert "<img" not in without_library((run / "report.html").read_text(encoding="utf-8"))
    assert "<img" not in (run / "report.md").read_text(encoding="utf-8")


def test_missing_parts_are_said(run: Path):
    shutil.rmtree(run / "latency")
    shutil.rmtree(run / "calibration")
    (run / "evaluations" / "w8a16" / "facts.json").unlink()
    found = report(run, command="c")
    assert "calibration: none in this run" in found.notes
    assert "variant w8a16: not evaluated on facts" in found.notes
    assert "variant w8a8: latency not measured" in found.notes
    assert "No plot" in (run / "report.html").read_text(encoding="utf-8")
    assert found.recommendation.variant is not None  # accuracy and size are enough, and the reason says so
    assert "speed not measured" in found.recommendation.reason


def test_a_run_with_variants_only_is_undecided(run: Path):
    for folder in ("latency", "evaluations", "calibration"):
        shutil.rmtree(run / folder)
    (run / "plan.json").unlink()
    found = report(run, command="c")
    assert found.recommendation.variant is None
    assert {row.overall for row in found.rows[1:]} == {"UNDECIDED"}
    assert "evaluations: none" in text_table(found)


def test_planned_but_missing_variant_is_said(run: Path):
    shutil.rmtree(run / "variants" / "w8a16")
    assert "variant w8a16: planned, not there yet" in report(run, command="c").notes


def test_parts_of_different_weights_are_said(run: Path):
    write_record(run / "latency" / "w8a16.json", replace(latency("w8a16", 9.0), variant_digest="9" * 64))
    other = replace(evaluation("w8a8", "facts", 0.97), items_digest="8" * 64)
    write_record(run / "evaluations" / "w8a8" / "facts.json", other)
    notes = "\n".join(report(run, command="c").notes)
    assert "w8a16: evaluations and latency belong to different weights" in notes
    assert "w8a8, facts: other items" in notes


def test_busy_machine_and_simulation_are_said(run: Path):
    profile = latency("w8a16", 9.0)
    busy = replace(profile, simulated=True, machine=replace(profile.machine, load_average_before=9.0))
    write_record(run / "latency" / "w8a16.json", busy)
    found = report(run, command="c")
    assert any("load average was up to 9.0 before timing w8a16" in note for note in found.notes)
    assert any("simulation" in note for note in found.notes)
    assert next(row for row in found.rows if row.variant.name == "w8a16").speedup is None


def test_critical_comes_from_the_plan_then_from_the_task(run: Path):
    assert report(run, command="c").critical_tasks == ("arithmetic",)
    write_record(run / "plan.json", replace(PLAN, tasks=(PlannedTask("arithmetic"), PlannedTask("facts"))))
    assert "facts" in report(run, command="c").critical_tasks


@pytest.mark.parametrize("names", [(), ("w8a16",)])
def test_refuses_a_run_without_a_baseline(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(StoreError, match="exactly one baseline"):
        report(write_run(tmp_path / "r", names=names), command="c")


def test_refuses_a_missing_run(tmp_path: Path):
    with pytest.raises(StoreError, match="no such folder"):
        report(tmp_path / "nothing", command="c")


def test_refuses_a_renamed_variant_folder(run: Path):
    (run / "variants" / "w8a8").rename(run / "variants" / "other")
    with pytest.raises(StoreError, match="renamed"):
        report(run, command="c")


def test_refuses_a_damaged_record_naming_file_and_key(run: Path):
    path = run / "variants" / "w8a8" / "variant.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace('"bytes": 950000,', '"bites": 950000,', 1), encoding="utf-8"
    )
    with pytest.raises(PlanError, match=r"w8a8/variant\.json: bites: unknown key"):
        report(run, command="c")


def test_terminal_table_has_a_line_a_variant_and_the_reason(run: Path):
    text = text_table(report(run, command="c"))
    assert "* w8a16" in text
    assert "Ship w8a16" in text
    assert variant("baseline", "base").name in text


def test_equal_runs_give_equal_files(tmp_path: Path):
    first, second = write_run(tmp_path / "a" / "demo"), write_run(tmp_path / "b" / "demo")
    for folder in (first, second):
        report(folder, command="c")
    for name in ("report.json", "report.md", "report.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_variant_or_an_evaluation_of_another_base_is_refused(run: Path):
    path = run / "evaluations" / "w8a8" / "facts.json"
    write_record(path, replace(evaluation("w8a8", "facts", 0.97), base_digest="9" * 64))
    with pytest.raises(MismatchError, match="facts of w8a8 was answered by a model of another base"):
        report(run, command="c")
    path.unlink()
    manifest = run / "variants" / "w8a8" / "variant.json"
    made = read_json(Variant, manifest)
    write_record(manifest, replace(made, base=replace(made.base, weights_digest="9" * 64)))
    with pytest.raises(MismatchError, match="variant w8a8 was made from reference-128"):
        report(run, command="c")
