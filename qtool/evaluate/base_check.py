"""Whether the base can do a task at all: where it can't, no variant is shown to be as good as anything."""

from collections.abc import Sequence
from dataclasses import replace

from qtool.evaluate.answers.options import options
from qtool.evaluate.contract import Metric
from qtool.evaluate.verdicts import metric_scale
from qtool.records.evaluation import Comparison, ItemResult, Score
from qtool.records.task import Item, TaskSpec


def chance_of(task: TaskSpec, items: Sequence[Item]) -> float:
    """The share of right answers that guessing among the items' choices gives; 0 where there is nothing to choose."""
    if task.scorer != "choice" and task.extract not in ("letter", "words"):
        return 0.0
    counts = [len(options(item)) if task.extract == "letter" else len(item.choices) for item in items]
    return sum(1 / count for count in counts if count) / max(1, len(counts))


def checked(
    comparison: Comparison, metric_name: str, metric: Metric, before: Sequence[ItemResult], *, chance: float | None,
    expected: float | None = None, clusters: Sequence[str] | None = None,
) -> Comparison:  # fmt: skip
    """`comparison`, or one that is UNDECIDED for good where the base's answers `before` certify nothing.

    That is so where the upper bound of its score is no more than the margin, since a variant that lost everything
    would then pass; where its score is not shown to be above `chance`; and where its interval and the margin on either
    side do not hold the score `expected` of it, since it was then not asked as it should be.
    """
    if metric.UNIT != "fraction" or metric.DIRECTION != "higher":
        return comparison
    score = metric_scale.score_of(metric_name, metric, before, clusters)
    reason = _far(score, comparison.margin, expected)
    if reason is None and (unable := _reason(score, comparison.margin, chance or 0.0)) is not None:
        reason = f"the base cannot do this task: {unable}; leave it out, or use a task that the base can do"
    if reason is None:
        return comparison
    return replace(
        comparison,
        verdict="UNDECIDED",
        reason=reason,
        items_to_decide=None,
        minutes_to_decide=None,
        base_fails=True,
    )


def _far(score: Score, margin: float, expected: float | None) -> str | None:
    low, high = score.interval.low, score.interval.high
    if expected is None or low - margin <= expected <= high + margin:
        return None
    return (
        f"the base scores {100 * score.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}], far from the "
        f"{100 * expected:.1f} % expected of it; see how it was asked (prompt, template, limit) before you compare"
    )


def _reason(score: Score, margin: float, chance: float) -> str | None:
    at_most = f"it scores {100 * score.value:.1f} %, at most {100 * score.interval.high:.1f} %"
    if score.interval.high <= margin:
        return f"{at_most}, and {100 * margin:.3g} points may be lost"
    if chance and score.interval.low <= chance:
        low, high = 100 * score.interval.low, 100 * score.interval.high
        return f"it scores {100 * score.value:.1f} % [{low:.1f}, {high:.1f}], and guessing gives {100 * chance:.1f} %"
    return None
