"""The ship test: is the variant worse than the baseline by less than the margin? PASS, FAIL or UNDECIDED.

Gains are paired, variant minus baseline, oriented so that more is better. PASS when the one-sided 95 % lower bound of
the mean gain is above -margin, FAIL when the upper bound is below it. Three bounds, each simulated by
benchmarks/verdicts.py:

- right-or-wrong items: Tango's score test inverted, two pseudo-items, one gained and one lost, added (Bonett and
  Price): without them a sample without any change would claim certainty;
- all other scores: Gaffke's bound, which holds for any distribution between the two ends (`bounded.py`);
- items that share a cluster: the wider of the score bound and one by cluster-robust error, both with Student's quantile
  at as many degrees of freedom as clusters really carry the variance; with fewer than ten clusters, no verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qtool.evaluate.verdicts.bounded import lower_bound, upper_bound
from qtool.evaluate.verdicts.statistics import Values
from qtool.records.evaluation import Interval, VerdictName
from qtool.records.ship_rule import verdict_of_bounds

LEVEL = 0.05
FEWEST_CLUSTERS = 10
FEWEST_TEXTS = 30
_MOST_REACH = 3.4  # normal quantiles: one degree of freedom would ask for 6 at 5 % and for any number below


@dataclass(frozen=True, slots=True)
class Bounds:
    """One-sided lower and upper bounds of the mean gain, each at 1 - `level`, over `items` items.

    `spread` is the standard deviation of one item's gain, `reach` the largest possible loss of one; `harmful` and
    `beneficial` count right-or-wrong items that changed, None for other scores. `blocked` says why there can be no
    verdict whatever the bounds.
    """

    estimate: float
    low: float
    high: float
    level: float
    items: int
    spread: float
    reach: float = 1.0
    harmful: int | None = None
    beneficial: int | None = None
    blocked: str = ""

    def interval(self) -> Interval:
        """Both bounds as one interval: two one-sided 95 % bounds enclose 90 %."""
        return Interval(self.low, self.high, 1 - 2 * self.level)


def bounds(
    gains: Values, *, pseudo: float = 1.0, clusters: Sequence[str] | None = None, level: float = LEVEL
) -> Bounds:
    """Bounds of the mean of `gains` [items], none of which can be above `pseudo` or below -`pseudo`.

    With `clusters`, items that share one are not counted as independent.
    """
    binary = pseudo == 1.0 and bool(np.isin(gains, (-1.0, 0.0, 1.0)).all())
    harmful, beneficial = int((gains < 0).sum()), int((gains > 0).sum())
    padded = np.append(gains, (pseudo, -pseudo))
    found = Bounds(
        estimate=float(gains.mean()),
        low=-pseudo,
        high=pseudo,
        level=level,
        items=len(gains),
        spread=float(padded.std(ddof=1)),
        reach=pseudo,
        harmful=harmful if binary else None,
        beneficial=beneficial if binary else None,
    )
    if clusters is not None:
        return _clustered(found, gains, np.asarray(clusters, dtype=object).astype(str))
    if binary:
        low, high = score_bounds(len(padded), harmful + 1, beneficial + 1, level)
    else:
        low = lower_bound(gains, floor=-pseudo, level=level)
        high = upper_bound(gains, ceiling=pseudo, level=level)
    return replace(found, low=low, high=high)


def without_verdict(found: Bounds, why: str) -> Bounds:
    """`found` with bounds as wide as they can be, since nothing is known: whoever reads them decides nothing."""
    return replace(found, low=-found.reach, high=found.reach, blocked=why)


def _clustered(found: Bounds, gains: Values, clusters: "np.ndarray[tuple[int], np.dtype[np.str_]]") -> Bounds:
    """`found` with bounds for items that hang together within `clusters`."""
    from scipy import stats

    _, membership = np.unique(clusters, return_inverse=True)
    sums = np.square(np.bincount(membership, weights=gains - found.estimate))
    count = len(sums)
    if count < FEWEST_CLUSTERS:
        which = "one cluster" if count == 1 else f"{count} clusters"
        return without_verdict(found, f"the items come from {which}; {FEWEST_CLUSTERS} are the fewest that can decide")
    # how many clusters the variance is made of: with two that changed among fifty, it is as little known as from two
    carrying = float(sums.sum() ** 2 / np.square(sums).sum()) - 1 if sums.any() else 1.0
    normal = float(stats.norm.isf(found.level))
    reach = min(float(stats.t.isf(found.level, min(max(carrying, 1.0), count - 1))), _MOST_REACH * normal)
    items = found.items + 2
    error = math.sqrt(count / (count - 1) * float(sums.sum()) + 2 * found.reach**2) / items
    center = float(gains.sum()) / items
    low, high = center - reach * error, center + reach * error
    if found.harmful is not None and found.beneficial is not None:
        level = float(stats.norm.sf(reach))
        score_low, score_high = score_bounds(items, found.harmful + 1, found.beneficial + 1, level)
        low, high = min(low, score_low), max(high, score_high)
    return replace(found, low=low, high=high, spread=error * math.sqrt(items))


def score_bounds(items: int, harmful: int, beneficial: int, level: float) -> tuple[float, float]:
    """Tango's score interval of the paired difference (beneficial - harmful) / items, each bound at 1 - `level`."""
    from scipy import optimize, stats

    reach = float(stats.norm.isf(level))
    estimate = (beneficial - harmful) / items

    def excess(gain: float, sign: float) -> float:
        return sign * score(items, harmful, beneficial, gain) - reach

    edge = 1 - 1e-9
    low = optimize.brentq(excess, -edge, estimate, args=(1.0,)) if excess(-edge, 1.0) > 0 else -1.0
    high = optimize.brentq(excess, estimate, edge, args=(-1.0,)) if excess(edge, -1.0) > 0 else 1.0
    return float(low), float(high)


def score(items: float, harmful: float, beneficial: float, gain: float) -> float:
    """Standard normal score of the observed difference if the true one were `gain`.

    The chance of a beneficial flip is the maximum-likelihood one under that hypothesis: the root of a quadratic.
    """
    drop = -gain
    linear = -(harmful + beneficial) + (2 * items - harmful + beneficial) * drop
    root = math.sqrt(max(0.0, linear**2 + 8 * items * beneficial * drop * (1 - drop)))
    better = max(0.0, (root - linear) / (4 * items))
    variance = items * (2 * better + drop * (1 - drop))
    distance = beneficial - harmful - items * gain
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def decide(found: Bounds, margin: float) -> VerdictName:
    """The verdict on one task."""
    return verdict_of_bounds(found.interval(), margin)
