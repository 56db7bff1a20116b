"""`until = "pass"` in a plan: a ladder of mixed variants that resumes and tells what it tried."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qtool.cli.app import app
from qtool.errors import PlanError
from qtool.evaluate.verdicts.sequential import FIRST_SHARE
from qtool.pipeline.plan import read_plan
from qtool.records.evaluation import Evaluation
from qtool.records.ladder import Ladder
from qtool.records.variant import Variant
from qtool.store.codec import read_json

PLAN = """
base = "reference-64"
[calibration]
sequences = 8
sequence_tokens = 64
[variants.auto]
bits = "auto"
tries = 3
[tasks.arithmetic]
items = 60
margin_points = MARGIN
[latency]
concurrency = [1]
requests = 5
prompt_tokens = 16
output_tokens = 2
"""


def run(folder: Path, margin: float) -> tuple[Ladder, str]:
    plan = folder / "plan.toml"
    plan.write_text(PLAN.replace("MARGIN", str(margin)))
    found = CliRunner().invoke(app, ["run", str(plan), "-o", str(folder / "run")])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return read_json(Ladder, folder / "run" / "ladders" / "auto.json"), found.output


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ladder, str]:
    folder = tmp_path_factory.mktemp("ladder")
    ladder, text = run(folder, 1.0)  # 60 items cannot show less than 1 point: every rung is tried
    return folder, ladder, text


def test_rungs_grow_and_share_the_level(climbed: tuple[Path, Ladder, str]) -> None:
    folder, ladder, text = climbed
    assert ladder.passed is None
    assert [rung.variant for rung in ladder.rungs] == ["auto-0", "auto-1", "auto-2"]
    assert ladder.level == pytest.approx(0.05 / 3)
    sizes, lifted = [rung.bytes for rung in ladder.rungs], [rung.lifted for rung in ladder.rungs]
    assert sizes == sorted(set(sizes))
    assert lifted[0] == 0
    assert lifted == sorted(lifted)
    manifest = read_json(Variant, folder / "run" / "variants" / "auto-2" / "variant.json")
    assert len(manifest.recipe.overrides) == lifted[2]
    found = read_json(Evaluation, folder / "run" / "evaluations" / "auto-1" / "arithmetic.json")
    assert found.comparison is not None
    assert found.comparison.interval.confidence == pytest.approx(1 - 2 * FIRST_SHARE * 0.05 / 3)
    assert "tried 3 of 3 rungs" in text.replace("\n", " ")
    assert any("none passed" in note for note in json.loads((folder / "run" / "report.json").read_text())["notes"])


def test_first_rung_that_passes_ends_the_climb_and_the_rest_is_kept_out(climbed: tuple[Path, Ladder, str]) -> None:
    folder, _, _ = climbed
    ladder, text = run(folder, 60.0)  # below what the base scores: more would certify nothing
    assert [rung.overall for rung in ladder.rungs] == ["PASS"]
    assert ladder.passed == "auto-0"
    assert "quantize:auto-0: unchanged, skipped" in text
    assert "sensitivity:auto: unchanged, skipped" in text
    assert sorted(path.name for path in (folder / "run" / "variants").iterdir()) == ["auto-0", "baseline"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("bits = 5", "bits: 5 is not one of 4, 8, 'auto'"),
        ('bits = 8\nscheme = "w4a16"', "8 does not go with scheme 'w4a16'"),
        ("group_size = 32", "give scheme"),
        ('bits = "auto"\nbudget = "much"', "budget: 'much'"),
        ('scheme = "base"\nmethod = "baseline"\nuntil = "pass"', "until"),
        ('bits = "auto"\nformat = "gptq"', "until"),
        ('bits = "auto"\ntries = 1', "tries: 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, table: str, problem: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f'base = "reference-64"\n[variants.v]\n{table}\n[tasks.arithmetic]\n')
    with pytest.raises(PlanError) as refused:
        read_plan(path)
    assert any(problem in text for text in refused.value.problems)


def test_budget_in_a_plan_is_an_option_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('base = "reference-64"\n[variants.v]\nbits = "auto"\nbudget = 500000\n[tasks.arithmetic]\n')
    (variant,) = read_plan(path).variants
    assert variant.until is None
    assert variant.recipe.options == (("budget", "500000"),)
