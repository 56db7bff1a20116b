"""The ship test: is the variant worse than the baseline by less than the margin? PASS, FAIL or UNDECIDED.

Gains are paired, variant minus baseline, oriented so that more is better. PASS when the one-sided 95 % lower bound of
the mean gain is above -margin, FAIL when the upper bound is below it. Two pseudo-items, one gained and one lost, are
added (Bonett and Price): without them a sample without any change would claim certainty.

Right-or-wrong items are bounded by inverting Tango's score test, all others by Student's t. With the t test, variants
at the margin whose flips are nearly all harmful pass in up to 9 % of samples; with the score test none of the cells of
benchmarks/verdicts.py is above 5 % by more than the simulation's own error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qtool.evaluate.statistics import Values, standard_error
from qtool.records.evaluation import Interval, VerdictName
from qtool.records.ship_rule import verdict_of_bounds

LEVEL = 0.05
POWER = 0.80

MOST_TO_DECIDE = 20_000  # enough for 20 % churn and a margin of 1 point when truly equal; beyond, the margin is met


@dataclass(frozen=True, slots=True)
class Bounds:
    """One-sided lower and upper bounds of the mean gain, each at 1 - `level`, over `items` items.

    `center` is the mean with the pseudo-items, `spread` the standard deviation of one item's gain.
    """

    estimate: float
    center: float
    low: float
    high: float
    level: float
    items: int
    spread: float

    def interval(self) -> Interval:
        """Both bounds as one interval: two one-sided 95 % bounds enclose 90 %."""
        return Interval(self.low, self.high, 1 - 2 * self.level)


def bounds(
    gains: Values, *, pseudo: float = 1.0, clusters: Sequence[str] | None = None, level: float = LEVEL
) -> Bounds:
    """Bounds of the mean of `gains` [items] with pseudo-items +pseudo and -pseudo added.

    `pseudo` is the largest possible gain of one item: 1 for scores between 0 and 1. With `clusters`, items that share
    one are not counted as independent.
    """
    padded = np.concatenate([gains, [pseudo, -pseudo]])
    groups = None if clusters is None else [*(f"cluster {name}" for name in clusters), "pseudo +", "pseudo -"]
    error, freedom = standard_error(padded, groups)
    center = float(padded.mean())
    if clusters is None and pseudo == 1.0 and bool(np.isin(gains, (-1.0, 0.0, 1.0)).all()):
        low, high = score_bounds(len(padded), int((padded < 0).sum()), int((padded > 0).sum()), level)
    else:
        from scipy import stats

        reach = float(stats.t.ppf(1 - level, freedom)) * error
        low, high = center - reach, center + reach
    return Bounds(
        estimate=float(gains.mean()),
        center=center,
        low=low,
        high=high,
        level=level,
        items=len(gains),
        spread=error * math.sqrt(len(padded)),
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


def score(items: int, harmful: int, beneficial: int, gain: float) -> float:
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


def items_to_decide(found: Bounds, margin: float) -> int | None:
    """How many items would decide with power 0.8 if spread and drop are what they seem; None where more than 20,000
    would have to: the difference lies at the margin then, as far as can be told."""
    from scipy import stats

    distance = abs(found.center + margin)
    if distance == 0 or not math.isfinite(found.spread):
        return None
    reach = float(stats.norm.ppf(1 - found.level) + stats.norm.ppf(POWER))
    needed = math.ceil((reach * found.spread / distance) ** 2)
    return None if needed > max(MOST_TO_DECIDE, found.items) else max(needed, found.items + 1)
