"""How item values become a score, gains and margins: shares of 1, or perplexity on its logarithm."""

import math
from collections.abc import Sequence

import numpy as np

from qtool.evaluate.contract import Metric
from qtool.evaluate.verdicts.statistics import Values, mean_interval, wilson
from qtool.records.evaluation import Interval, ItemResult, Score
from qtool.records.task import REPEATED

WORST_NATS = 2.0
_LEAST_MARGIN = 1e-6  # of a base that scores nothing: no margin at all


def score_of(name: str, metric: Metric, rows: Sequence[ItemResult], clusters: Sequence[str] | None = None) -> Score:
    """The score of `rows` with its 95 % interval: Wilson's for right or wrong, and where
    all values are 0 or all 1; Student's otherwise."""
    values = np.array([row.score for row in rows])
    if metric.UNIT == "perplexity":
        found = mean_interval(_weighted(values, rows), clusters=clusters)
        mean = float(_weighted(values, rows).mean())
        return Score(
            name,
            math.exp(mean),
            Interval(math.exp(found.low), _exp(found.high), found.confidence),
            len(rows),
            metric.UNIT,
        )
    if any(row.weight != 1 for row in rows):
        return _weighted_score(name, metric, values, rows, clusters=clusters)
    if metric.BINARY and clusters is None:
        return Score(name, float(values.mean()), wilson(int(values.sum()), len(rows)), len(rows), metric.UNIT)
    if bool((values == values[0]).all()) and values[0] in (0.0, 1.0):
        # no spread is no certainty: as many trials as there are independent items, all with one result
        trials = len(rows) if clusters is None else len(set(clusters))
        return Score(name, float(values[0]), wilson(int(values[0]) * trials, trials), len(rows), metric.UNIT)
    found = mean_interval(values, clusters=clusters)
    return Score(name, float(values.mean()), _clipped(found), len(rows), metric.UNIT)


def also(rows: Sequence[ItemResult]) -> tuple[Score, ...]:
    """The scores under the other metrics that each of `rows` has a value of."""
    names = [name for name, _ in rows[0].also] if rows else []
    weights = np.array([float(row.weight) for row in rows])
    found = []
    for name in names:
        values = np.array([dict(row.also)[name] for row in rows])
        mean = float((values * weights).sum() / weights.sum())
        found.append(Score(name, mean, wilson(round(mean * len(rows)), len(rows)), len(rows)))
    return tuple(found)


def at_least_once(rows: Sequence[ItemResult], repeats: int, metric: Metric) -> tuple[Score, ...]:
    """Where items were asked `repeats` times, the share of items that were right at least once (pass@k)."""
    if repeats < 2:
        return ()
    best: dict[str, bool] = {}
    for row in rows:
        item = dict(row.slices).get(REPEATED, row.id)
        best[item] = best.get(item, False) or row.score == metric.PERFECT
    right = sum(best.values())
    return (Score(f"pass@{repeats}", right / len(best), wilson(right, len(best)), len(best), "fraction"),)


def gains(metric: Metric, before: Sequence[ItemResult], after: Sequence[ItemResult]) -> Values:
    """Gain of each item, variant minus baseline, positive where the variant is better.

    For perplexity it is the drop in nats a token, weighted by the item's tokens.
    """
    change = np.array([row.score for row in after]) - np.array([row.score for row in before])
    if metric.UNIT == "perplexity":
        return _weighted(-change, after)
    oriented: Values = change if metric.DIRECTION == "higher" else -change
    weights = _weights(after)
    return oriented if weights is None else oriented * weights


def reach_of(metric: Metric, gained: Values, rows: Sequence[ItemResult]) -> float:
    """The largest gain or loss that one item can have: 1 for scores between 0 and 1 (as many times more as the heaviest
    of `rows` counts).

    The perplexity of a text can grow without end. 2 nats a token (7 times) is taken as the worst of one text, or twice
    the largest change that was seen, so that heavy losses too rare to be in the sample are still allowed for.
    """
    if metric.UNIT == "perplexity":
        tokens = np.array([float(row.prompt_tokens * row.weight) for row in rows])
        return max(WORST_NATS * float(tokens.max() / tokens.mean()), 2 * float(np.abs(gained).max()))
    weights = _weights(rows)
    return 1.0 if weights is None else float(weights.max())


def margin_of(metric: Metric, points: float, percent: float | None, before: Sequence[ItemResult]) -> float:
    """The margin in the unit of the gains: points / 100, or ln(1 + points / 100) for perplexity; where `percent` is
    given, so much of the baseline's own score (perplexity's points are percent already)."""
    if metric.UNIT == "perplexity":
        return math.log1p((points if percent is None else percent) / 100)
    if percent is None:
        return points / 100
    weights = np.array([float(row.weight) for row in before])
    mean = float((np.array([row.score for row in before]) * weights).sum() / weights.sum())
    return max(percent / 100 * mean, _LEAST_MARGIN)


def _weights(rows: Sequence[ItemResult]) -> Values | None:
    """Each row's weight over the mean weight, None where all are alike."""
    if all(row.weight == 1 for row in rows):
        return None
    counts = np.array([float(row.weight) for row in rows])
    shares: Values = counts / counts.mean()
    return shares


def _weighted_score(
    name: str, metric: Metric, values: Values, rows: Sequence[ItemResult], *, clusters: Sequence[str] | None
) -> Score:
    """The mean over the data's rows, with the certainty of as many items as there are different ones."""
    weights = _weights(rows)
    assert weights is not None, "some weight is not 1"
    found = mean_interval(values * weights, clusters=clusters)
    mean = float((values * weights).mean())
    if found.low == found.high:
        trials = len(rows) if clusters is None else len(set(clusters))
        return Score(name, mean, wilson(round(mean * trials), trials), len(rows), metric.UNIT)
    return Score(name, mean, _clipped(found), len(rows), metric.UNIT)


def _weighted(values: Values, rows: Sequence[ItemResult]) -> Values:
    tokens = np.array([float(row.prompt_tokens * row.weight) for row in rows])
    weights: Values = tokens / tokens.mean()
    return values * weights


def _clipped(found: Interval) -> Interval:
    return Interval(max(0.0, found.low), min(1.0, found.high), found.confidence)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))  # above, a float is infinite and no record can hold it
