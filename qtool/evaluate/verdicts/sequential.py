"""Looking several times without fooling oneself: levels for each look that together spend 5 %, and no more.

The looks of one test are correlated normal variables. After a fraction t of the items, the share `spending(t)` of the
error has been spent (Lan and DeMets); the boundary of each look is found by carrying the density of the not yet stopped
test from look to look (Armitage, McPherson and Rowe). Spending in proportion to the items is the default, because most
tasks are decided at the first look; O'Brien and Fleming's would make that look nearly useless.

Every look is remembered in the evaluation: a run with more items is the next look, not a new test.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtool.evaluate.verdicts.verdict import LEVEL
from qtool.records.evaluation import Look

FIRST_SHARE = 0.8  # of the level, spent by a look that says nothing of how many there may be

_GRID = 1201
_REACH = 9.0  # standard deviations below which the density is cut off


@dataclass(frozen=True, slots=True)
class Plan:
    """How one test may look: `level` in all, `limit` the most items there will be, None where nobody has said."""

    level: float = LEVEL
    limit: int | None = None


def look(history: Sequence[Look], items: int, plan: Plan) -> tuple[Look, ...]:
    """`history` with a look at `items` added, unless as many have been looked at before: then that look is repeated."""
    if history and items <= history[-1].items:
        return tuple(history)
    spent = spend_now(history, items, limit=plan.limit, level=plan.level)
    return (*history, Look(items, next_level(history, items, spent), spent))


def look_sizes(first: int, limit: int) -> tuple[int, ...]:
    """Numbers of items at which to look: `first`, doubled until `limit`, which is the last."""
    sizes = []
    size = first
    while size < limit:
        sizes.append(size)
        size *= 2
    return (*sizes, limit)


def spend_now(looks: Sequence[Look], items: int, *, limit: int | None, level: float = LEVEL) -> float:
    """Error that a look at `items` may spend after `looks`: in proportion to the items where `limit` is the most there
    will be; else four fifths of all at the first look and half of what is left at each further one, so that something
    always is."""
    left = max(0.0, level - sum(look.spent for look in looks))
    if limit is None:
        return FIRST_SHARE * left if not looks else left / 2
    before = looks[-1].items if looks else 0
    return left * min(1.0, (items - before) / max(1, limit - before))


def next_level(looks: Sequence[Look], items: int, spend: float) -> float:
    """One-sided level of a look at `items` that spends `spend` after `looks` that did not decide; 0 for nothing."""
    if spend <= 0:
        return 0.0
    grid, density, before = np.zeros(1), np.ones(1), 0.0
    from scipy import stats

    for look in looks:
        fraction = look.items / items
        boundary = float(stats.norm.isf(look.level)) if look.level > 0 else _REACH
        grid, density = _carried(grid, density, step=math.sqrt(fraction - before), ceiling=boundary * fraction**0.5)
        before = fraction
    return float(stats.norm.sf(_boundary(grid, density, fraction=1.0, before=before, allowed=spend)))


def proportional(fraction: float, level: float) -> float:
    """Error spent once `fraction` of the items has been seen: in proportion (Kim and DeMets, exponent 1)."""
    return level * fraction


def obrien_fleming(fraction: float, level: float) -> float:
    """Error spent once `fraction` of the items has been seen: next to nothing early."""
    from scipy import stats

    return float(2 * stats.norm.sf(stats.norm.ppf(1 - level / 2) / math.sqrt(fraction)))


def look_levels(
    sizes: Sequence[int], *, level: float = LEVEL, spending: Callable[[float, float], float] = proportional
) -> tuple[float, ...]:
    """One-sided level at which to test at each look, such that a false PASS at any of them has chance `level`."""
    from scipy import stats

    fractions = [size / sizes[-1] for size in sizes]
    levels: list[float] = []
    grid: NDArray[np.float64] = np.zeros(1)
    density: NDArray[np.float64] = np.ones(1)
    before = 0.0
    for index, fraction in enumerate(fractions):
        allowed = spending(fraction, level) - (spending(fractions[index - 1], level) if index else 0.0)
        boundary = _boundary(grid, density, fraction=fraction, before=before, allowed=allowed)
        levels.append(float(stats.norm.sf(boundary)))
        step = math.sqrt(fraction - before)
        grid, density = _carried(grid, density, step=step, ceiling=boundary * math.sqrt(fraction))
        before = fraction
    return tuple(levels)


def _boundary(
    grid: NDArray[np.float64], density: NDArray[np.float64], *, fraction: float, before: float, allowed: float
) -> float:
    """Normal boundary at `fraction` that a test carried on from `before` crosses with chance `allowed`."""
    from scipy import optimize, stats

    step = math.sqrt(fraction - before)

    def excess(boundary: float) -> float:
        return float(stats.norm.sf((boundary * math.sqrt(fraction) - grid) / step) @ density) - allowed

    return float(optimize.brentq(excess, -_REACH, 40.0))


def _carried(
    grid: NDArray[np.float64], density: NDArray[np.float64], *, step: float, ceiling: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points below `ceiling` and the mass of the continuing test at each, after one more increment of sd `step`."""
    floor = min(float(grid.min()), 0.0) - _REACH * step
    points = np.linspace(floor, ceiling, _GRID)
    width = (ceiling - floor) / (_GRID - 1)
    weights = np.full(_GRID, width)
    weights[[0, -1]] = width / 2  # trapezoid
    distance = (points[:, None] - grid[None, :]) / step
    mass = np.exp(-0.5 * np.square(distance)) @ density / (step * math.sqrt(2 * math.pi))
    return points, mass * weights
