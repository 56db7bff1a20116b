"""What a comparison can show, told before it; and all tasks taken together."""

import numpy as np
import pytest

from qtool.evaluate.items import tasks
from qtool.evaluate.verdicts import power, verdict
from qtool.evaluate.verdicts.pooled import pool, sentence
from qtool.records.evaluation import Churn, Comparison, Interval, Score


def test_the_chance_told_is_that_of_the_ship_test_itself() -> None:
    rng = np.random.default_rng(0)
    counts, times = np.unique(rng.multinomial(300, [0.005, 0.005, 0.99], 20_000)[:, :2], axis=0, return_counts=True)
    passed = 0
    for (harmful, beneficial), count in zip(counts.tolist(), times.tolist(), strict=True):
        gains = np.zeros(300)
        gains[:harmful] = -1.0
        gains[harmful : harmful + beneficial] = 1.0
        passed += count * (verdict.decide(verdict.bounds(gains, level=0.04), 0.02) == "PASS")
    assert power.chance_to_pass(300, 0.02) == pytest.approx(passed / 20_000, abs=0.015)


def test_eight_tasks_of_250_items_are_told_to_be_too_few_and_how_many_are_enough() -> None:
    line = power.told([power.Question(250, 0.02)] * 8)
    assert "passes all 8 tasks with a chance of 1 %" in line
    assert "; with 750 items each: 97 %" in line
    assert ";" not in power.told([power.Question(2000, 0.02)] * 8)
    assert power.told([]) == ""


def test_a_variant_that_loses_nothing_passes_all_shipped_tasks() -> None:
    specs = [tasks.load_task(name) for name in tasks.task_names()]
    asked = [power.Question(task.items, task.margin_points / 100) for task in specs if task.scorer != "rolling"]
    assert power.chance_to_pass_all(asked) >= power.ENOUGH


def one_task(harmful: int, beneficial: int, items: int, *, unit: str = "fraction") -> tuple[Score, Comparison, Churn]:
    around = Interval(-0.1, 0.1)
    change = (beneficial - harmful) / items
    comparison = Comparison("b", change, around, 0.02, "UNDECIDED", "", 0.5, None)
    score = Score("exact", 0.5, around, items, unit)  # type: ignore[arg-type]
    return score, comparison, Churn(items, harmful, beneficial, 0, None, None)


def test_a_loss_too_small_for_one_task_shows_in_all_of_them() -> None:
    found = pool([one_task(57, 40, 2000)] * 8)  # 0.85 points each, none of them alone beyond a margin of 2
    assert found is not None
    assert (found.tasks, found.items, found.harmful, found.beneficial) == (8, 16_000, 456, 320)
    assert found.difference == pytest.approx(-0.0085)
    assert found.interval.low < -0.0085 < found.interval.high < 0
    assert found.p_worse < 1e-5
    assert "got worse together" in sentence(found)
    even = pool([one_task(40, 40, 2000)] * 8)
    assert even is not None
    assert even.p_worse > 0.4


def test_perplexity_and_a_single_task_are_not_pooled() -> None:
    assert pool([one_task(3, 0, 100)]) is None
    assert pool([one_task(3, 0, 100), one_task(3, 0, 100, unit="perplexity")]) is None
