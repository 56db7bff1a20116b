"""Whether a variant writes longer than its baseline: what a user waits for is an answer, not a token."""

from collections.abc import Sequence

import numpy as np

from qtool.evaluate.verdicts.statistics import standard_error
from qtool.records.evaluation import AnswerLength, Interval, ItemResult

_CONFIDENCE = 0.95


def length(
    before: Sequence[ItemResult], after: Sequence[ItemResult], clusters: Sequence[str] | None = None
) -> AnswerLength | None:
    """The paired ratio of tokens an answer; None where the answers are no text, or the baseline wrote nothing.

    The interval is that of a ratio of means by the delta method, on its logarithm; answers to one item (`clusters`) are
    not counted as independent.
    """
    if not any(row.output_ids for row in after) or len(after) < 2:
        return None
    old = np.array([float(row.output_tokens) for row in before])
    new = np.array([float(row.output_tokens) for row in after])
    if not old.sum() or not new.sum():
        return None
    ratio = float(new.mean() / old.mean())
    error, freedom = standard_error((new - ratio * old) / old.mean(), clusters)
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, freedom)) * error / ratio
    return AnswerLength(
        items=len(after),
        tokens=float(new.mean()),
        baseline_tokens=float(old.mean()),
        ratio=ratio,
        interval=Interval(
            float(ratio * np.exp(-min(reach, 50.0))), float(ratio * np.exp(min(reach, 50.0))), _CONFIDENCE
        ),
        at_limit=_count(after, "length"),
        baseline_at_limit=_count(before, "length"),
        looping=sum(row.fault == "looping" for row in after),
        baseline_looping=sum(row.fault == "looping" for row in before),
    )


def _count(rows: Sequence[ItemResult], finish: str) -> int:
    return sum(row.finish == finish for row in rows)
