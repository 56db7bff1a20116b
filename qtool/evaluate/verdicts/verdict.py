"""The ship test: is the variant worse than the baseline by less than the margin? PASS, FAIL or UNDECIDED.

Gains are paired, variant minus baseline, oriented so that more is better. PASS when the one-sided 95 % lower bound of
the mean gain is above -margin, FAIL when the upper bound is below it. Three bounds, each simulated by
benchmarks/verdicts.py:

- right-or-wrong items: Tango's score test inverted, two pseudo-items, one gained and one lost, added (Bonett and
  Price): without them a sample without any change would claim certainty;
- all other scores: Gaffke's bound, which holds for any distribution between the two ends (`bounded.py`);
- items that share a cluster: Gaffke's bound over clusters, each with the sum of its items' gains. It assumes nothing of
  how items of one cluster hang together, so it holds where whole clusters are lost; with fewer than ten, no verdict.
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """One-sided lower and upper bounds of the mean gain, each at 1 - `level`, over `items` items.

    `spread` is the standard deviation of one item's gain, `reach` the largest possible loss of what is lost as one: an
    item, or a cluster of items; `harmful` and `beneficial` count right-or-wrong items that changed, None for other
    scores and for clusters, of which there are `clusters`. `blocked` says why there can be no verdict whatever the
    bounds.
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
    clusters: int | None = None

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


def fewest_clusters(margin: float, level: float = LEVEL) -> int:
    """How many clusters must be seen unharmed before a loss of `margin`, in whole clusters, can be excluded."""
    return max(FEWEST_CLUSTERS, math.ceil(math.log(level) / math.log1p(-min(margin, 0.5))))


def _clustered(found: Bounds, gains: Values, clusters: "np.ndarray[tuple[int], np.dtype[np.str_]]") -> Bounds:
    """`found` with bounds for items of which a whole cluster may be lost at once."""
    _, membership = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(membership)
    count = len(sizes)
    if count < FEWEST_CLUSTERS:
        which = "one cluster" if count == 1 else f"{count} clusters"
        few = without_verdict(found, f"the items come from {which}; {FEWEST_CLUSTERS} are the fewest that can decide")
        return replace(few, clusters=count)
    # in units of the mean cluster, so that the mean over clusters is the mean over items
    values = np.bincount(membership, weights=gains) / sizes.mean()
    furthest = found.reach * float(sizes.max() / sizes.mean())
    return replace(
        found,
        low=max(-found.reach, lower_bound(values, floor=-furthest, level=found.level)),
        high=min(found.reach, upper_bound(values, ceiling=furthest, level=found.level)),
        spread=float(np.append(values, (furthest, -furthest)).std(ddof=1)) * math.sqrt(float(sizes.mean())),
        reach=found.reach * float(sizes.max()),
        harmful=None,
        beneficial=None,
        clusters=count,
    )


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
