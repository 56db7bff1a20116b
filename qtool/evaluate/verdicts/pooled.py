"""All tasks taken together: a loss too small for any one of them shows in their mean. It never decides shipping."""

import math
from collections.abc import Sequence

from qtool.evaluate.verdicts.statistics import mcnemar_worse
from qtool.records.evaluation import Churn, Comparison, Interval, Pooled, Score

_CONFIDENCE = 0.90


def pool(compared: Sequence[tuple[Score, Comparison, Churn]]) -> Pooled | None:
    """The mean difference over tasks whose score is a fraction, each counting alike; None for fewer than two. Tasks
    whose items hang together in clusters are left out, since their flips cannot be counted one by one.

    The p-value is McNemar's over all items of all tasks: exact whatever the tasks, since a task where nothing is lost
    flips either way alike.
    """
    from scipy import stats

    fractions = [
        (comparison, churn)
        for score, comparison, churn in compared
        if score.is_fraction and comparison.clusters is None
    ]
    if len(fractions) < 2:
        return None
    mean = sum(comparison.difference for comparison, _ in fractions) / len(fractions)
    error = math.sqrt(sum(_variance(comparison, churn) for comparison, churn in fractions)) / len(fractions)
    reach = float(stats.norm.ppf(0.5 + _CONFIDENCE / 2)) * error
    return Pooled(
        tasks=len(fractions),
        items=sum(churn.items for _, churn in fractions),
        difference=mean,
        interval=Interval(mean - reach, mean + reach, _CONFIDENCE),
        harmful=sum(churn.harmful for _, churn in fractions),
        beneficial=sum(churn.beneficial for _, churn in fractions),
        p_worse=mcnemar_worse(
            sum(churn.harmful for _, churn in fractions), sum(churn.beneficial for _, churn in fractions)
        ),
    )


def sentence(pooled: Pooled) -> str:
    """The pooled row in words."""
    low, high = (100 * value for value in (pooled.interval.low, pooled.interval.high))
    verb = "got worse together" if pooled.p_worse < 0.05 else "no loss shown together"
    return (
        f"all {pooled.tasks} tasks: mean change {100 * pooled.difference:+.2f} points [{low:+.2f}, {high:+.2f}]; "
        f"of {pooled.items:,} items {pooled.harmful} down, {pooled.beneficial} up: {verb} (p = {pooled.p_worse:.2g})"
    )


def _variance(comparison: Comparison, churn: Churn) -> float:
    """Of one task's mean difference: from its bootstrap interval, else from the flips, two of which are added."""
    if comparison.bootstrap is not None and comparison.clusters is None:
        width = comparison.bootstrap.high - comparison.bootstrap.low
        return (width / (2 * 1.96)) ** 2
    changed = (churn.harmful + churn.beneficial + 2) / (churn.items + 2)
    return max(changed - comparison.difference**2, 0.0) / churn.items
