"""What one pass leaves of a linear layer's input: bounded in size whatever the number of tokens, and mergeable.

Rows of the calibration set are put into *groups*, each of one tag and wholly for calibration or wholly held out. A
histogram is kept per group, so that the certificate can resample groups, and a merge of shards only unites them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtool.errors import DataError, MismatchError
from qtool.records.histogram import BINS, Histogram
from qtool.store.ranges_file import ChannelStatistics

Array = NDArray[np.float64]

SAMPLED_TOKENS = 256  # token vectors kept per layer, from which the effective rank is estimated


class NothingObserved(DataError):
    """A layer whose input was never seen: it has no range, and zero would be a lie."""

    def __init__(self, layer: str) -> None:
        super().__init__(f"{layer}: saw no tokens, so it has no range; calibrate on text that reaches it")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a pass keeps of single columns, because an observer asked: a histogram for every `column_group` columns (0:
    none), and with `column_steps` the bounds of every column in every group of rows."""

    column_group: int = 0
    column_steps: bool = False


INPUTS_ONLY = Kept()  # what every pass keeps: nothing of single columns but their sums and bounds


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are resampled together; `index` is its place in the whole set, the same in every shard."""

    index: int
    tag: str
    held_out: bool
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class GroupCounts:
    """Histogram of one group's values, only the bins that were seen: `bins` int32, `counts` int64.

    `columns`, float32 [2, columns], are the lowest and highest value of every column, where a pass kept them.
    """

    group: int
    tokens: int
    bins: NDArray[np.int32]
    counts: NDArray[np.int64]
    low: float
    high: float
    columns: NDArray[np.float32] | None = None

    def histogram(self) -> Histogram:
        """The same counts over all bins."""
        counts = np.zeros(BINS, dtype=np.int64)
        counts[self.bins] = self.counts
        return Histogram(counts, self.low, self.high)


@dataclass(frozen=True, slots=True, eq=False)
class ChannelSums:
    """Sums over the calibration tokens for each input column: float64 [columns] each."""

    tokens: int
    low: Array
    high: Array
    total: Array
    total_magnitude: Array
    total_square: Array

    def finish(self) -> ChannelStatistics:
        """Means and bounds of the columns, float32 [columns] each."""
        count = max(self.tokens, 1)
        return ChannelStatistics(
            tokens=self.tokens,
            absmax=np.maximum(-self.low, self.high).astype(np.float32),
            low=self.low.astype(np.float32),
            high=self.high.astype(np.float32),
            mean=(self.total / count).astype(np.float32),
            mean_abs=(self.total_magnitude / count).astype(np.float32),
            second_moment=(self.total_square / count).astype(np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class TokenSample:
    """Inputs of a few calibration tokens, float32 [tokens, columns], and the draw that chose them, float64 [tokens]."""

    draws: Array
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class InputStatistics:
    """Everything known of one linear input, named after the first layer that reads it; an output is kept alike.

    `channels` are over the calibration tokens, `held_out` over the held-out tokens of each tag. `column_counts` over
    the calibration tokens is there where an observer asked for it: int32 [columns, COLUMN_BINS], or int64 with a row
    for every few columns. `rank` is the effective rank, where it was told already and `sample` let go.
    """

    name: str
    columns: int
    groups: tuple[GroupCounts, ...]
    channels: ChannelSums
    held_out: dict[str, ChannelSums]
    sample: TokenSample
    column_counts: NDArray[Any] | None = None
    rank: float | None = None

    def histogram(self, groups: Iterable[int]) -> Histogram:
        """One histogram over `groups`; those that never reached this layer count nothing."""
        wanted = set(groups)
        counts = np.zeros(BINS, dtype=np.int64)
        seen = [entry for entry in self.groups if entry.group in wanted]
        for entry in seen:
            counts[entry.bins] += entry.counts
        low = min((entry.low for entry in seen), default=0.0)
        return Histogram(counts, low, max((entry.high for entry in seen), default=0.0))

    def tokens(self, groups: Iterable[int]) -> int:
        """Tokens of `groups` that reached this layer."""
        wanted = set(groups)
        return sum(entry.tokens for entry in self.groups if entry.group in wanted)


def merge_statistics(first: InputStatistics, second: InputStatistics) -> InputStatistics:
    """Statistics of both shards; equal to one pass over both. Raises MismatchError when they share a group."""
    if first.name != second.name or first.columns != second.columns:
        raise MismatchError(f"{first.name} [{first.columns}] and {second.name} [{second.columns}] are different inputs")
    if twice := {entry.group for entry in first.groups} & {entry.group for entry in second.groups}:
        raise MismatchError(f"{first.name}: group {min(twice)} of the set is in both shards; give each shard once")
    return InputStatistics(
        name=first.name,
        columns=first.columns,
        groups=tuple(sorted((*first.groups, *second.groups), key=lambda entry: entry.group)),
        channels=merge_channels(first.channels, second.channels),
        held_out={
            tag: merge_channels(
                first.held_out.get(tag, no_channels(first.columns)),
                second.held_out.get(tag, no_channels(first.columns)),
            )
            for tag in sorted({*first.held_out, *second.held_out})
        },
        sample=smallest_draws((first.sample, second.sample)),
        column_counts=_sum(first.column_counts, second.column_counts),
    )


def smallest_draws(samples: Sequence[TokenSample]) -> TokenSample:
    """The SAMPLED_TOKENS tokens with the smallest draws, in their order: the same whatever the shards were."""
    draws = np.concatenate([sample.draws for sample in samples])
    vectors = np.concatenate([sample.vectors for sample in samples])
    kept = np.argsort(draws, kind="stable")[:SAMPLED_TOKENS]
    return TokenSample(draws[kept], vectors[kept])


def no_channels(columns: int) -> ChannelSums:
    """Sums over no token."""
    zeros = [np.zeros(columns) for _ in range(3)]
    return ChannelSums(0, np.full(columns, np.inf), np.full(columns, -np.inf), *zeros)


def merge_channels(first: ChannelSums, second: ChannelSums) -> ChannelSums:
    """Sums over the tokens of both."""
    return ChannelSums(
        tokens=first.tokens + second.tokens,
        low=np.minimum(first.low, second.low),
        high=np.maximum(first.high, second.high),
        total=first.total + second.total,
        total_magnitude=first.total_magnitude + second.total_magnitude,
        total_square=first.total_square + second.total_square,
    )


def _sum(first: NDArray[Any] | None, second: NDArray[Any] | None) -> NDArray[Any] | None:
    return second if first is None else first if second is None else first + second
