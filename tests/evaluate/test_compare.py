"""Comparing what exists already: our folders, and lm-eval's sample logs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qtool.errors import DataError, MismatchError, PlanError
from qtool.evaluate import results
from qtool.evaluate.verdicts.compare import compare, render
from tests.evaluate.test_stage import right, run, wrong_when
from tests.evaluate.workshop import Workshop


def write_log(
    folder: Path, task: str, scores: list[float], *, date: str = "2026-11-23T10-00-00.0", **changes: object
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, score in enumerate(scores):
        for name, shift in (("strict-match", 0.0), ("flexible-extract", 1.0)):
            sample = {
                "doc_id": index, "doc": {"q": index}, "target": str(index), "arguments": {}, "resps": [["x"]],
                "filtered_resps": ["x" if score else "y"], "filter": name, "metrics": ["exact_match"],
                "doc_hash": f"d{index}", "target_hash": f"t{index}", "exact_match": score if shift == 0 else 1.0,
            }  # fmt: skip
            lines.append(json.dumps(sample | changes))
    path = folder / f"samples_{task}_{date}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_two_folders_of_ours_give_the_verdict_of_the_evaluation(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b", count=400)
    measured = run(workshop, workshop.model("v", wrong_when(4)), tmp_path / "v", count=400, baseline=tmp_path / "b")
    found = compare(tmp_path / "b", tmp_path / "v")
    assert measured.comparison is not None
    assert found.tasks[0].comparison.verdict == measured.comparison.verdict == "FAIL"
    assert found.tasks[0].comparison.interval == measured.comparison.interval
    assert found.overall == "FAIL"
    assert [worse.task for worse in found.worse] == ["sums"]
    assert "got worse" in render(found)


def test_tasks_that_are_not_critical_do_not_decide_here_either(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b", count=400)
    run(workshop, workshop.model("v", wrong_when(4)), tmp_path / "v", count=400, baseline=tmp_path / "b")
    for folder in (tmp_path / "b", tmp_path / "v"):
        found, rows = results.read_finished(folder, "sums")
        results.finish(folder, replace(found, task="easy"), list(rows.values()))
        results.finish(folder, replace(found, critical=False, tier=None), list(rows.values()))
    rows = results.read_finished(tmp_path / "b", "easy")[1]
    fine = replace(results.read_finished(tmp_path / "v", "easy")[0], run_digest=next(iter(rows.values())).run_digest)
    results.finish(tmp_path / "v", fine, list(rows.values()))
    found = compare(tmp_path / "b", tmp_path / "v")
    assert {each.task: each.comparison.verdict for each in found.tasks} == {"easy": "PASS", "sums": "FAIL"}
    assert found.overall == "PASS"


def test_lm_eval_logs_are_read_by_task_metric_and_filter(tmp_path: Path) -> None:
    write_log(tmp_path / "a", "gsm8k", [1.0] * 400)
    write_log(tmp_path / "b", "gsm8k", [0.0] * 40 + [1.0] * 360)
    strict = compare(tmp_path / "a", tmp_path / "b")
    assert (strict.tasks[0].task, strict.tasks[0].variant.metric) == ("gsm8k", "exact_match")
    assert strict.tasks[0].variant.value == 0.9
    assert (strict.tasks[0].churn.harmful, strict.overall) == (40, "FAIL")
    flexible = compare(tmp_path / "a", tmp_path / "b", log_filter="flexible-extract")
    assert flexible.overall == "PASS"


def test_the_newest_log_of_a_task_counts(tmp_path: Path) -> None:
    write_log(tmp_path / "a", "gsm8k", [1.0] * 50)
    write_log(tmp_path / "b", "gsm8k", [0.0] * 50, date="2026-01-01T10-00-00.0")
    write_log(tmp_path / "b", "gsm8k", [1.0] * 50, date="2026-11-24T10-00-00.0")
    assert compare(tmp_path / "a", tmp_path / "b").tasks[0].variant.value == 1.0


def test_only_common_items_are_compared_and_other_tasks_named(tmp_path: Path) -> None:
    write_log(tmp_path / "a", "gsm8k", [1.0] * 50)
    write_log(tmp_path / "b", "gsm8k", [1.0] * 30)
    write_log(tmp_path / "b", "arc", [1.0] * 30)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.tasks[0].variant.items == 30
    assert found.only_one_side == ("arc",)


def test_a_task_that_only_one_side_answered_was_not_passed(tmp_path: Path) -> None:
    for side in ("a", "b"):
        write_log(tmp_path / side, "gsm8k", [1.0] * 400)
    assert compare(tmp_path / "a", tmp_path / "b").overall == "PASS"
    write_log(tmp_path / "a", "arc", [1.0] * 30)
    assert compare(tmp_path / "a", tmp_path / "b").overall == "UNDECIDED"


def test_other_documents_under_the_same_ids_are_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "a", "gsm8k", [1.0] * 5)
    write_log(tmp_path / "b", "gsm8k", [1.0] * 5, doc_hash="other")
    with pytest.raises(MismatchError, match="another on each side"):
        compare(tmp_path / "a", tmp_path / "b")


def test_no_task_in_common_is_said(tmp_path: Path) -> None:
    write_log(tmp_path / "a", "gsm8k", [1.0])
    write_log(tmp_path / "b", "arc", [1.0])
    with pytest.raises(MismatchError, match="gsm8k against arc"):
        compare(tmp_path / "a", tmp_path / "b")


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="holds none of"):
        compare(tmp_path / "a", tmp_path / "a")
    with pytest.raises(DataError, match="no such"):
        compare(tmp_path / "absent", tmp_path / "a")
    path = write_log(tmp_path / "b", "gsm8k", [1.0])
    with pytest.raises(DataError, match="no filter"):
        compare(path, path, log_filter="loose")
    with pytest.raises(DataError, match="no number called 'f1'"):
        compare(path, path, metric="f1")
    path.write_text('{"doc_id": 1}\n{torn')
    with pytest.raises(DataError, match=r"\.jsonl:2: not valid JSON"):
        compare(path, path)


@pytest.mark.parametrize("margin", [0.0, -2.0, 101.0])
def test_a_margin_that_is_no_drop_is_refused(tmp_path: Path, margin: float) -> None:
    path = write_log(tmp_path / "b", "gsm8k", [1.0])
    with pytest.raises(PlanError, match="margin"):
        compare(path, path, margin_points=margin)


def test_likelihoods_that_only_wobble_are_no_change(tmp_path: Path) -> None:
    wrong = [0.0] * 50
    write_log(tmp_path / "a", "arc", wrong, filtered_resps=[["-1.5", "False"], ["-2.5", "False"]])
    write_log(tmp_path / "b", "arc", wrong, filtered_resps=[["-1.4", "False"], ["-2.6", "False"]])
    write_log(tmp_path / "c", "arc", wrong, filtered_resps=[["-2.7", "False"], ["-2.6", "False"]])
    assert compare(tmp_path / "a", tmp_path / "b").tasks[0].churn.wrong_to_other_wrong == 0
    assert compare(tmp_path / "a", tmp_path / "c").tasks[0].churn.wrong_to_other_wrong == 50


@pytest.mark.parametrize("turned", [False, True])
def test_evaluations_of_two_base_models_are_refused_in_either_order(
    workshop: Workshop, tmp_path: Path, turned: bool
) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "a")
    run(workshop, workshop.model("v", right, scheme="w8a16", base_weights="other"), tmp_path / "b")
    sides = (tmp_path / "b", tmp_path / "a") if turned else (tmp_path / "a", tmp_path / "b")
    with pytest.raises(MismatchError, match="different base models") as caught:
        compare(*sides)
    assert caught.value.exit_code == 7
