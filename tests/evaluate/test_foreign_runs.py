"""Results of nel, inspect_ai and plain JSON lines, compared as our own are."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from qtool.errors import DataError, PlanError
from qtool.evaluate.export import FORMS, export
from qtool.evaluate.verdicts.compare import compare, read_side
from tests.evaluate.test_stage import right, run, wrong_when
from tests.evaluate.workshop import Workshop


def nel(folder: Path, rewards: list[list[float]], *, name: str = "gsm8k") -> Path:
    folder.mkdir(parents=True)
    lines = [
        {"problem_idx": item, "repeat": repeat, "reward": reward, "expected_answer": str(item), "prompt": f"q{item}"}
        for item, several in enumerate(rewards)
        for repeat, reward in enumerate(several)
    ]
    (folder / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "eval-1.json").write_text(json.dumps({"benchmark": {"name": name, "scores": {}}}))
    return folder


def inspect_samples(values: Sequence[object]) -> list[dict[str, object]]:
    return [
        {"id": number, "epoch": 1, "input": f"q{number}", "target": "t", "output": {"completion": f"a{value}"},
         "scores": {"match": {"value": value, "answer": str(value)}}}
        for number, value in enumerate(values)
    ]  # fmt: skip


def test_nel_results_are_compared_item_by_item_under_the_benchmarks_name(tmp_path: Path) -> None:
    base = nel(tmp_path / "b", [[1.0]] * 400)
    variant = nel(tmp_path / "v", [[0.0]] * 40 + [[1.0]] * 360)
    found = compare(base, variant, margin_points=2)
    assert found.overall == "FAIL"
    assert found.tasks[0].task == "gsm8k"
    assert (found.tasks[0].churn.harmful, found.tasks[0].variant.items) == (40, 400)


def test_repeats_of_an_item_are_one_item_with_its_mean(tmp_path: Path) -> None:
    rows = read_side(nel(tmp_path / "b", [[1.0, 0.0, 1.0, 0.0], [1.0] * 4]))["gsm8k"].rows
    assert [row.score for row in rows] == [0.5, 1.0]
    # 40 items asked 10 times each are no 400 items: nothing that changed could be in the other 20 of a hundred
    base, variant = nel(tmp_path / "x", [[1.0] * 10] * 40), nel(tmp_path / "y", [[1.0] * 10] * 40)
    assert compare(base, variant, margin_points=2).overall == "UNDECIDED"


@pytest.mark.parametrize("zipped", [True, False])
def test_inspect_logs_are_read_in_both_forms(tmp_path: Path, zipped: bool) -> None:
    sides = []
    for name, values in (("b", ["C"] * 300), ("v", ["I"] * 30 + ["C"] * 270)):
        header = {"version": 2, "status": "success", "eval": {"task": "facts", "model": name}}
        samples = inspect_samples(values)
        if zipped:
            path = tmp_path / f"{name}.eval"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("header.json", json.dumps(header))
                for sample in samples:
                    archive.writestr(f"samples/{sample['id']}_epoch_1.json", json.dumps(sample))
        else:
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(header | {"samples": samples}))
        sides.append(path)
    found = compare(sides[0], sides[1], margin_points=3)
    assert [each.task for each in found.tasks] == ["facts"]
    assert found.tasks[0].churn.harmful == 30
    assert found.overall == "FAIL"


def test_plain_lines_with_an_id_and_a_score_are_enough(tmp_path: Path) -> None:
    for name, wrong in (("b", 0), ("v", 1)):
        lines = [json.dumps({"id": f"i{n}", "correct": n >= wrong}) for n in range(300)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "task.jsonl").write_text("\n".join(lines))
    found = compare(tmp_path / "b" / "task.jsonl", tmp_path / "v" / "task.jsonl", margin_points=5)
    assert found.overall == "PASS"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "1"}', r"task.jsonl:2: expected an id .* and a score"),
        ('{"id": "1", "score": "good"}', r"task.jsonl:2: score is 'good', not a number"),
        ('{"id": "1", "score": NaN}', r"task.jsonl:2: score is nan, not a number"),
        ("[1]", r"task.jsonl:2: expected a JSON object"),
        (
            '{"id": "0", "score": 1, "prompt": "other"}',
            r"task.jsonl:2: item '0' asked something else at .*:1",
        ),
        ('{"id": "2", "score": 7}', r"score is not between 0 and 1"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text('{"id": "0", "score": 1}\n' + line + "\n")
    with pytest.raises(DataError, match=told):
        read_side(path)


@pytest.mark.parametrize("form", FORMS)
def test_what_we_write_for_others_is_read_back_with_the_same_verdict(
    workshop: Workshop, tmp_path: Path, form: str
) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b", count=200)
    run(workshop, workshop.model("v", wrong_when(4)), tmp_path / "v", count=200, baseline=tmp_path / "b")
    ours = compare(tmp_path / "b", tmp_path / "v", margin_points=3)
    theirs = []
    for side in ("b", "v"):
        assert export(tmp_path / side, form, tmp_path / "out" / side)
        theirs.append(tmp_path / "out" / side)
    found = compare(theirs[0], theirs[1], margin_points=3)
    assert [each.task for each in found.tasks] == [each.task for each in ours.tasks] == ["sums"]
    assert found.overall == ours.overall == "FAIL"
    assert found.tasks[0].churn.harmful == ours.tasks[0].churn.harmful
    assert found.tasks[0].comparison.difference == pytest.approx(ours.tasks[0].comparison.difference)


def test_an_unknown_form_and_a_folder_without_evaluations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="choose one of lm_eval, nel, inspect"):
        export(tmp_path, "csv", tmp_path / "out")
    with pytest.raises(DataError, match="holds no finished evaluations"):
        export(tmp_path, "nel", tmp_path / "out")


def test_a_folder_with_nothing_to_read_says_what_could_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results.jsonl of nel"):
        read_side(tmp_path)
    (tmp_path / "x.eval").write_text("no zip")
    with pytest.raises(DataError, match="not a log of inspect_ai"):
        read_side(tmp_path / "x.eval")
