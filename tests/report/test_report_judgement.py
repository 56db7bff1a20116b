"""Verdicts, front and recommendation on made-up evaluations."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import PLAN, evaluation, latency, variant, write_run

from qtool.records.evaluation import Evaluation
from qtool.records.plan import Budget
from qtool.report.choose import rejections
from qtool.report.join import join
from qtool.report.judge import worst_margin_use
from qtool.report.pareto import dominates, front
from qtool.report.stage import judge
from qtool.report.texts.undecided import what_decides
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record

CRITICAL = ("arithmetic", "facts")
PASSING, OPEN = 0.97, 0.962


def _evaluations(first: float, second: float):
    return evaluation("v", "arithmetic", first), evaluation("v", "facts", second)


def test_a_critical_task_that_was_left_out_is_not_passed(tmp_path: Path):
    run = write_run(tmp_path)
    (run / "evaluations" / "w8a16" / "arithmetic.json").unlink()
    found = judge(join(run), name="r", command="c")
    assert {row.variant.name: row.overall for row in found.rows}["w8a16"] == "UNDECIDED"
    assert found.recommendation.variant != "w8a16"


def test_where_no_task_is_critical_all_of_them_count(tmp_path: Path):
    tasks = tuple(replace(task, critical=False) for task in PLAN.tasks)
    found = judge(join(write_run(tmp_path, plan=replace(PLAN, tasks=tasks))), name="r", command="c")
    assert found.critical_tasks == ("arithmetic", "facts")
    assert {row.variant.name: row.overall for row in found.rows}["w4a16"] == "FAIL"
    assert found.recommendation.variant == "w8a16"


def test_an_evaluation_says_itself_whether_its_task_counts(tmp_path: Path):
    run = write_run(tmp_path, plan=replace(PLAN, tasks=()))
    for folder in (run / "evaluations").iterdir():
        found = read_json(Evaluation, folder / "arithmetic.json")
        write_record(folder / "arithmetic.json", replace(found, critical=False, tier=None))
    assert judge(join(run), name="r", command="c").critical_tasks == ("facts",)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(points):
    kept = front(points)
    on = [point for point, keep in zip(points, kept, strict=True) if keep]
    off = [point for point, keep in zip(points, kept, strict=True) if not keep]
    assert on
    assert all(any(dominates(better, point) for better in on) for point in off)
    assert not any(dominates(first, second) for first in on for second in on)


def test_recommends_the_passing_variant_with_least_size_times_time(tmp_path: Path):
    found = judge(join(write_run(tmp_path)), name="r", command="c")
    assert found.recommendation.variant == "w8a16"
    assert found.recommendation.runner_up == "w8a8"
    assert "n 1000" in found.recommendation.reason
    rejected = {row.variant.name: row.rejected_because for row in found.rows}
    assert rejected["baseline"] == ()
    assert rejected["w4a16"][0].startswith("arithmetic: FAIL")
    assert "4,200 items would decide" in rejected["w4a16-g64"][0]


def test_recommends_nothing_where_nothing_passed(tmp_path: Path):
    found = judge(join(write_run(tmp_path, names=("baseline", "w4a16", "w4a16-g64"))), name="r", command="c")
    assert found.recommendation.variant is None
    assert "stay with baseline" in found.recommendation.reason
    assert "w4a16-g64" in found.recommendation.reason


def test_budget_rejects_what_it_was_not_shown_to_keep(tmp_path: Path):
    row = judge(join(write_run(tmp_path)), name="r", command="c").rows[1]
    over = rejections(row, ("arithmetic",), Budget(memory_bytes=1000, e2e_ms_p95=1.0))
    assert [text.partition(":")[0] for text in over] == ["memory budget", "time budget", "time budget"]
    unknown = rejections(replace(row, latency=None), ("arithmetic",), Budget(memory_bytes=1000, e2e_ms_p95=1.0))
    assert unknown == ("memory budget: peak memory not measured", "time budget: latency not measured")


def test_worst_task_is_the_one_that_used_most_of_its_margin(tmp_path: Path):
    row = judge(join(write_run(tmp_path)), name="r", command="c").rows[1]
    row = replace(row, variant=variant("v"), latency=latency("v", 10.0), evaluations=_evaluations(PASSING, OPEN))
    worst = worst_margin_use(row, CRITICAL)
    assert worst is not None
    assert worst.task == "facts"
    assert worst.low == pytest.approx((OPEN - 0.97 - 0.004) / 0.01)


def test_what_no_number_of_items_decides_says_why(tmp_path: Path):
    """A base that cannot do the task is not `the difference lies at the margin`, and asking more is not advised."""
    report = judge(join(write_run(tmp_path, names=("baseline", "w4a16-g64"))), name="r", command="c")
    row = next(each for each in report.rows if each.variant.name == "w4a16-g64")
    undecided = [each.comparison for each in row.evaluations if each.comparison and each.comparison.verdict != "PASS"]
    assert what_decides(undecided[0]) == "about 4,200 items would decide"
    unable = replace(undecided[0], items_to_decide=None, base_fails=True)
    assert what_decides(unable) == "more items will not decide it, since the base cannot do this task"
    blocked = replace(undecided[0], items_to_decide=None, reason="4 clusters show nothing")
    assert what_decides(blocked) == "more items will not decide it: 4 clusters show nothing"
    assert "evaluate more" not in report.recommendation.reason
