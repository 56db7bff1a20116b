"""What a range would have been on other rows: prefixes, halves and bootstrap samples of the groups of one input."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtool.calibrate.observe import Asked, Seen, observe
from qtool.calibrate.statistics.inputs import Group, InputStatistics
from qtool.records.histogram import BINS, Histogram

RESAMPLES = 40
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """The calibration groups of one input as a matrix: counts float64 [groups, seen bins], exact below 2**53."""

    layer: str
    bins: NDArray[np.int64]
    counts: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rows: NDArray[np.int64]
    tags: tuple[str, ...]

    def high_of(self, asked: Asked, places: Sequence[int] | Places) -> float:
        """Upper end of the range over the groups at `places`; a place given twice counts twice."""
        chosen = np.asarray(places, dtype=np.int64)
        weights = np.bincount(chosen, minlength=len(self.low)).astype(np.float64)
        counts = np.zeros(BINS, dtype=np.int64)
        counts[self.bins] = (weights @ self.counts).astype(np.int64)
        histogram = Histogram(counts, float(self.low[chosen].min()), float(self.high[chosen].max()))
        steps = tuple(zip(self.low[chosen].tolist(), self.high[chosen].tolist(), strict=True))
        low, high = observe(asked, Seen(histogram, steps), self.layer)
        return max(-low, high)

    @property
    def everything(self) -> Places:
        """All places, in order."""
        return np.arange(len(self.low))


def groups_of(entry: InputStatistics, used: Sequence[Group]) -> Groups:
    """The groups of `used` that reached this input, in their order."""
    known = {group.index: group for group in used}
    seen = [counts for counts in entry.groups if counts.group in known]
    bins = np.unique(np.concatenate([np.zeros(0, np.int32), *(counts.bins for counts in seen)])).astype(np.int64)
    matrix = np.zeros((len(seen), len(bins)))
    for place, counts in enumerate(seen):
        matrix[place, np.searchsorted(bins, counts.bins)] = counts.counts
    return Groups(
        layer=entry.name,
        bins=bins,
        counts=matrix,
        low=np.array([counts.low for counts in seen]),
        high=np.array([counts.high for counts in seen]),
        rows=np.array([len(known[counts.group].rows) for counts in seen], dtype=np.int64),
        tags=tuple(known[counts.group].tag for counts in seen),
    )


def prefixes(groups: Groups) -> list[Places]:
    """The first 1/16, 1/8, ... 1/1 of the groups, those that hold at least one; the groups are in random order."""
    count = len(groups.low)
    ends = sorted({count >> shift for shift in range(5)} - {0})
    return [np.arange(end) for end in ends]


def halves(groups: Groups) -> tuple[Places, Places]:
    """Every second group of each tag, and the others."""
    places = np.argsort(np.array(groups.tags), kind="stable")
    return np.sort(places[::2]), np.sort(places[1::2])


def bootstrap(asked: Asked, groups: Groups, *, seed: int) -> float:
    """Standard error of the range: spread over RESAMPLES samples of the groups, drawn with replacement in each tag."""
    generator = np.random.default_rng([seed, 3])
    tags = np.array(groups.tags)
    strata = [np.flatnonzero(tags == tag) for tag in sorted(set(groups.tags))]
    values = [
        groups.high_of(asked, np.sort(np.concatenate([generator.choice(part, len(part)) for part in strata])))
        for _ in range(RESAMPLES)
    ]
    return float(np.std(values, ddof=1))
