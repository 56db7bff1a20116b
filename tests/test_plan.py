"""A plan that cannot work is refused before any work, with every problem and its key."""

from pathlib import Path

import pytest

from qtool.errors import PlanError
from qtool.pipeline.plan import read_plan
from qtool.quantize.request.recipe import completed
from qtool.records.variant import Recipe

GOOD = """
base = "reference-64"
[calibration]
sequences = 8
[variants.w8a16]
scheme = "w8a16"
[variants.w8a8]
scheme = "w8a8"
[tasks.arithmetic]
items = 10
margin_points = 1.5
"""


def _plan(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def test_a_good_plan_is_read_with_defaults_filled_in(tmp_path: Path) -> None:
    plan = read_plan(_plan(tmp_path, GOOD))
    assert plan.name == "plan"
    assert [variant.name for variant in plan.variants] == ["w8a16", "w8a8"]
    assert plan.variants[1].recipe.activations == "dynamic"
    assert plan.tasks[0].margin_points == 1.5


def test_the_demo_plan_is_a_good_plan() -> None:
    plan = read_plan(Path(__file__).resolve().parent.parent / "qtool" / "reference" / "demo.toml")
    assert len(plan.tasks) == 8


def test_wrong_types_and_unknown_keys_are_refused_all_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("sequences = 8", 'sequences = "8"').replace("items = 10", "item = 10")
    with pytest.raises(PlanError) as caught:
        read_plan(_plan(tmp_path, text))
    assert len(caught.value.problems) == 2
    found = "\n".join(caught.value.problems)
    assert "calibration.sequences: expected int, got str '8'" in found
    assert "tasks.arithmetic.item: unknown key" in found


def test_impossible_combinations_are_refused_all_at_once(tmp_path: Path) -> None:
    text = """
base = "reference-64"
[calibration]
set = "mixd"
observers = ["absmaxx"]
[variants.baseline]
scheme = "w8a16"
[variants.a]
scheme = "w4a16"
group_size = 48
activations = "static"
[variants.b]
scheme = "w8a8"
activations = "static"
observer = "mse"
[variants.c]
scheme = "w8a8"
method = "gptqq"
format = "gptq"
[tasks.arithmetik]
margin_points = 0
items = 0
[latency]
concurrency = [0]
[budget]
memory_bytes = 0
"""
    with pytest.raises(PlanError) as caught:
        read_plan(_plan(tmp_path, text))
    found = "\n".join(caught.value.problems)
    for expected in (
        "calibration.set: unknown calibration set 'mixd'; did you mean mixed",
        "calibration.observers: unknown observer 'absmaxx'",
        "variants.baseline.name",
        "variants.a.group_size: 48 does not go with w4a16",
        "variants.a.activations: 'static' does not go with w4a16",
        "variants.b.observer: 'mse' is not in calibration.observers",
        "variants.c.method: unknown method 'gptqq'; did you mean gptq",
        "variants.c.format: 'gptq' cannot hold w8a8",
        "tasks.arithmetik: unknown task 'arithmetik'; did you mean arithmetic",
        "tasks.arithmetik.margin_points: 0.0 is not above 0",
        "tasks.arithmetik.items: 0 is not at least 1",
        "latency.concurrency[0]: 0 is not at least 1",
        "budget.memory_bytes: 0 is not above 0",
    ):
        assert expected in found, expected
    assert all(problem.startswith(str(tmp_path / "plan.toml")) for problem in caught.value.problems)
    assert len(caught.value.problems) == 14


def test_a_plan_without_variants_or_tasks_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"variants: name at least one(.|\n)*tasks: name at least one"):
        read_plan(_plan(tmp_path, 'base = "reference-64"\n[variants]\n[tasks]\n'))


def test_relative_folders_are_taken_from_the_plans_own_folder(tmp_path: Path) -> None:
    (tmp_path / "my-evals").mkdir()
    plan = read_plan(_plan(tmp_path, 'evals_dir = "my-evals"\n' + GOOD))
    assert plan.evals_dir == str(tmp_path / "my-evals")


@pytest.mark.parametrize(
    ("fields", "method", "format_"),
    [
        ({"scheme": "w4a16"}, "rtn", "compressed-tensors"),
        ({"scheme": "w4a16", "method": "gptqmodel"}, "gptqmodel", "gptq"),
        ({"scheme": "nf4"}, "bitsandbytes", "bitsandbytes"),
        ({"scheme": "w4a16", "method": "gptq", "format": "gptq"}, "gptq", "gptq"),
        ({"scheme": "w4a16", "method": "no_such"}, "no_such", "compressed-tensors"),
    ],
)
def test_what_a_recipe_leaves_open_is_what_its_scheme_and_method_declare(
    fields: dict[str, str], method: str, format_: str
) -> None:
    found = completed(Recipe(**fields))  # type: ignore[arg-type]
    assert (found.method, found.format) == (method, format_)
