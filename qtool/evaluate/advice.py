"""How many items would decide, with power 0.8, given what has been seen and the looks that were spent on it."""

import math
from collections.abc import Sequence

from qtool.evaluate.verdicts import sequential
from qtool.evaluate.verdicts.verdict import Bounds, score
from qtool.records.evaluation import Look

POWER = 0.80
MOST_TO_DECIDE = 20_000  # enough for 20 % churn and a margin of 1 point when truly equal; beyond, the margin is met


def items_to_decide(
    found: Bounds, margin: float, *, history: Sequence[Look] = (), level: float | None = None
) -> int | None:
    """The number of items at which `--until-decided` decides with power 0.8.

    The items seen are kept, and those to come are taken from a variant that is truly equal, if what was seen allows
    that; from one that loses twice the margin, if more than the margin was lost; else from one that loses as measured.
    None where more than 20,000 would be needed, or no number decides: the difference lies at the margin, as far as can
    be told. `level` is the error of all looks together, that of `found` where this look is the only one.
    """
    if found.blocked:
        return None
    plan = sequential.Plan(level=found.level if level is None else level)
    drop = _assumed_drop(found, margin)
    if abs(drop - margin) < 1e-3 * margin:
        return None

    def decides(items: int) -> bool:
        return _power(found, margin, drop, items=items, level=_level_at(history, items, plan)) >= POWER

    high = found.items + 1
    while not decides(high):
        if high >= MOST_TO_DECIDE:
            return None
        high = min(MOST_TO_DECIDE, max(high + 8, round(1.25 * high)))
    low = max(found.items, round(high / 1.25) - 8)
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def assumption(found: Bounds, margin: float) -> str:
    """What the number advised takes to be true, in words."""
    drop = _assumed_drop(found, margin)
    if drop == 0:
        return "if in truth nothing is lost"
    return "if in truth twice the margin is lost" if drop == 2 * margin else "if in truth as much is lost as measured"


def _assumed_drop(found: Bounds, margin: float) -> float:
    lost = -found.estimate
    if lost <= margin:
        return 0.0 if found.high >= 0 else lost
    return 2 * margin if -found.low >= 2 * margin else lost


def _level_at(history: Sequence[Look], items: int, plan: sequential.Plan) -> float:
    """The level that one more look at `items` has if all that is left is spent there."""
    if not history:
        return plan.level
    left = plan.level - sum(look.spent for look in history)
    return sequential.next_level(history, items, left)


def _power(found: Bounds, margin: float, drop: float, *, items: int, level: float) -> float:
    """Chance that `items` items decide the way `drop` lies, given the sum of gains seen so far."""
    from scipy import stats

    more = items - found.items
    if more <= 0 or level <= 0:
        return 0.0
    toward = 1.0 if drop < margin else -1.0
    reach = float(stats.norm.isf(level))
    expected = found.estimate * found.items - drop * more
    spread = math.sqrt(more * max(_variance(found) - drop**2, 1e-12))
    short = toward * (_needed(found, margin, items=items, reach=reach, toward=toward) - expected)
    return float(stats.norm.sf(short / spread))


def _variance(found: Bounds) -> float:
    """Mean square of one item's gain; one change is added, since the next sample may well have one."""
    if found.harmful is None or found.beneficial is None:
        return found.spread**2
    own = (found.harmful + found.beneficial + 1) / (found.items + 1)
    return max(own, found.spread**2 - 2 / found.items)


def _needed(found: Bounds, margin: float, *, items: int, reach: float, toward: float) -> float:
    """The smallest sum of gains over `items` that passes (the largest that fails, where `toward` is -1)."""
    variance = _variance(found)
    if found.harmful is None or found.beneficial is None:
        # the added value's random weight has mean 1 and deviation 1: Gaffke's bound to two moments
        return toward * (found.reach + reach * math.sqrt(items * variance + found.reach**2)) - items * margin
    low, high = -items * min(1.0, variance + margin), items * min(1.0, variance + margin)
    for _ in range(40):
        middle = (low + high) / 2
        changed = max(variance * items, abs(middle))
        harmful, beneficial = (changed - middle) / 2 + 1, (changed + middle) / 2 + 1
        passed = toward * score(items + 2, harmful, beneficial, -margin) > reach
        if toward > 0:
            low, high = (low, middle) if passed else (middle, high)
        else:
            low, high = (middle, high) if passed else (low, middle)
    return (low + high) / 2
