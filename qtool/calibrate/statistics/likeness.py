"""Whether traffic that is not in the mix looks like what is: a test with a null, so that its alarms have a rate.

Every group of rows is described by what it did to each linear input: the shares of values in coarse histogram bins,
their square roots taken (Hellinger's distance). Traffic is *covered* when its groups could be calibration groups of
one tag, or of a mixture of tags. The statistic is the squared distance between the means of the traffic's groups and of
a control, the mixture of calibration groups that comes nearest; both unbiased, so it is about zero where there is no
difference. Its null is the same statistic over random splits of the two together, in the same sizes. Only means are
compared, so traffic that lies between two tags can pass for a mixture of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtool.calibrate.statistics.inputs import Group, InputStatistics

ALARM_RATE = 0.01  # of covered traffic is called unlike
SPLITS = 999
_COARSE = 16  # fine bins in a coarse one: four coarse bins an octave
_LEAST_WEIGHT = 0.1  # a tag that the best mixture holds less of is left out of the control

Matrix = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Likeness:
    """`distance`: of the squared spread between rows, how much the traffic lies off the nearest mixture of tags.

    `p_value` is the share of random splits with as large a distance; `nearest` are the tags of that mixture.
    """

    distance: float
    p_value: float
    nearest: tuple[str, ...]


def closeness(inputs: Sequence[InputStatistics], groups: Sequence[Group]) -> Matrix:
    """Minus half the squared distance of every two groups, [groups, groups], each input counting the same.

    Inputs that some group never reached (experts) are left out: they would measure the routing.
    """
    found = np.zeros((len(groups), len(groups)))
    for entry in inputs:
        if len(entry.groups) == len(groups):
            found -= _distances(entry) / 2
    return found


def likeness(held_out: Places, kinds: Mapping[str, Places], near: Matrix, *, seed: int) -> Likeness | None:
    """How the groups `held_out` relate to calibration groups, by tag in `kinds`; `near` is closeness of all.

    None where there are too few groups for an alarm to be possible at all.
    """
    tags = tuple(kinds)
    if len(held_out) < 2 or not near.any():
        return None
    weights = _mixture(held_out, tuple(kinds.values()), near)
    control = _control(weights, tuple(kinds.values()))
    main = int(np.argmax(weights))
    sides = [places for places in (control, kinds[tags[main]]) if len(places) > 1]
    sides = [places for places in sides if math.comb(len(places) + len(held_out), len(held_out)) >= 1 / ALARM_RATE]
    if not sides:
        return None
    tests = [_split_test(held_out, places, near, seed) for places in sides]
    # covered by one tag or covered by a mixture: unlike means unlike both
    distance, p_value = max(tests, key=lambda test: test[1])
    spread = _spread(control, near)
    named = tuple(tag for tag, weight in zip(tags, weights, strict=True) if weight >= _LEAST_WEIGHT)
    return Likeness(distance / spread if spread > 0 else 0.0, p_value, named)


def _distances(entry: InputStatistics) -> Matrix:
    """Squared distance of every two groups at one input, its mean over pairs 1, in order of the groups."""
    coarse = [counts.bins // _COARSE for counts in entry.groups]
    keys = np.unique(np.concatenate(coarse))
    shares = np.zeros((len(coarse), len(keys)))
    for place, (bins, counts) in enumerate(zip(coarse, entry.groups, strict=True)):
        np.add.at(shares[place], np.searchsorted(keys, bins), counts.counts)
    roots = np.sqrt(shares / shares.sum(1, keepdims=True))
    squared = np.maximum(2 - 2 * roots @ roots.T, 0.0)
    mean = squared[np.triu_indices(len(squared), 1)].mean() if len(squared) > 1 else 0.0
    return np.asarray(squared / mean if mean > 0 else squared)


def _mixture(held_out: Places, kinds: Sequence[Places], near: Matrix) -> NDArray[np.float64]:
    """Weights of the tags, not negative and one together, whose mean comes nearest to that of `held_out`.

    Frank and Wolfe's method: always towards the one tag that helps most, as far as it helps.
    """
    between = np.array([[_mean(first, second, near) for second in kinds] for first in kinds])
    towards = np.array([_mean(held_out, places, near) for places in kinds])
    weights = np.zeros(len(kinds))
    weights[np.argmin(np.diag(between) - 2 * towards)] = 1.0
    for _ in range(200):
        slope = between @ weights - towards
        step = -weights
        step[np.argmin(slope)] += 1
        gain, curve = -float(slope @ step), float(step @ between @ step)
        if gain <= 1e-12:
            break
        weights = weights + step * (min(1.0, gain / curve) if curve > 0 else 1.0)
    return weights


def _mean(first: Places, second: Places, near: Matrix) -> float:
    """Mean closeness of two different groups, one of each tag; the tags may be one and the same."""
    block = near[np.ix_(first, second)]
    if first is not second or len(first) == 1:
        return float(block.mean())
    return float((block.sum() - np.trace(block)) / (len(first) * (len(first) - 1)))


def _control(weights: NDArray[np.float64], kinds: Sequence[Places]) -> Places:
    """As many groups of each tag as its weight says; the groups are in random order, so the first ones do."""
    kept = np.where(weights < _LEAST_WEIGHT, 0.0, weights)
    kept = kept / kept.sum()
    size = min(len(places) / weight for places, weight in zip(kinds, kept, strict=True) if weight > 0)
    parts = [places[: max(1, round(weight * size))] for places, weight in zip(kinds, kept, strict=True) if weight > 0]
    return np.concatenate(parts)


def _split_test(first: Places, second: Places, near: Matrix, seed: int) -> tuple[float, float]:
    """Unbiased squared distance of the means of two sets of groups, and its p-value over random splits."""
    pool = np.concatenate([first, second])
    inside = near[np.ix_(pool, pool)].copy()
    np.fill_diagonal(inside, 0.0)
    generator = np.random.default_rng([seed, 4])
    splits = np.zeros((SPLITS + 1, len(pool)))
    splits[0, : len(first)] = 1
    for split in splits[1:]:
        split[generator.permutation(len(pool))[: len(first)]] = 1
    ours = ((splits @ inside) * splits).sum(1)
    across = splits @ inside.sum(0) - ours
    theirs = inside.sum() - ours - 2 * across
    size, other = len(first), len(second)
    distances = ours / (size * (size - 1)) + theirs / (other * (other - 1)) - 2 * across / (size * other)
    # the split that is the data counts too, so the p-value is never zero and never too small
    return float(distances[0]), float((distances >= distances[0] - 1e-12).mean())


def _spread(places: Places, near: Matrix) -> float:
    """Mean squared distance of two groups of `places`."""
    block = near[np.ix_(places, places)]
    return float(-2 * (block.sum() - np.trace(block)) / max(len(places) * (len(places) - 1), 1))
