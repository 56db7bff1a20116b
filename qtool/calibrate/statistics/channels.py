"""What the columns of an input tell: dead ones, outliers, how many directions are used, how heavy the tail is."""

from dataclasses import replace

import numpy as np

from qtool.calibrate.statistics.inputs import InputStatistics, TokenSample
from qtool.calibrate.statistics.inputs_file import BlockStatistics
from qtool.records.histogram import Histogram, middles

OUTLIER_RATIO = 6.0  # times the median column's largest magnitude
MOST_LISTED = 16


def dead_channels(entry: InputStatistics) -> int:
    """Columns that were zero for every token."""
    return int((np.maximum(-entry.channels.low, entry.channels.high) == 0).sum())


def outlier_channels(entry: InputStatistics) -> tuple[int, ...]:
    """Columns whose largest magnitude is OUTLIER_RATIO times the median column's, largest first, at most 16."""
    largest = np.maximum(-entry.channels.low, entry.channels.high)
    typical = np.median(largest)
    found = [
        int(column) for column in np.argsort(-largest)[:MOST_LISTED] if largest[column] > OUTLIER_RATIO * typical > 0
    ]
    return tuple(found)


def effective_rank(entry: InputStatistics) -> float | None:
    """(sum of eigenvalues)² / (sum of their squares) of the second moment E[x xᵀ], between 1 and the columns.

    Neither needs the matrix: the trace is the mean squared length, and the squared Frobenius norm is the mean squared
    product of two different tokens, both unbiased over the sampled tokens.
    """
    if entry.rank is not None:
        return entry.rank
    vectors = entry.sample.vectors.astype(np.float64)
    count = len(vectors)
    if count < 2:
        return None
    products = vectors @ vectors.T
    lengths = np.diag(products)
    frobenius = ((products**2).sum() - (lengths**2).sum()) / (count * (count - 1))
    if frobenius <= 0:
        return None
    return float(np.clip(lengths.mean() ** 2 / frobenius, 1.0, entry.columns))


def settled(block: BlockStatistics) -> BlockStatistics:
    """The same with effective ranks in place of the sampled tokens, which are most of what a block leaves."""
    return replace(block, inputs=tuple(map(_settled_input, block.inputs)))


def _settled_input(entry: InputStatistics) -> InputStatistics:
    empty = TokenSample(np.zeros(0), np.zeros((0, entry.columns), np.float32))
    return replace(entry, sample=empty, rank=effective_rank(entry))


def tail_index(histogram: Histogram) -> float | None:
    """Hill's estimate from the largest 0.1 % of magnitudes: small is heavy, above about 10 there is hardly a tail.

    None where fewer than 50 values are that large.
    """
    counts = histogram.magnitudes()
    above = np.cumsum(counts[::-1])[::-1]  # values in this bin or a larger one
    wanted = 0.001 * counts.sum()
    if wanted < 50:
        return None
    start = int(np.flatnonzero(above >= wanted)[-1])
    centres = middles(histogram.absmax)
    excess = (counts[start:] * np.log(centres[start:] / centres[start])).sum() / above[start]
    return float(1 / excess) if excess > 0 else None
