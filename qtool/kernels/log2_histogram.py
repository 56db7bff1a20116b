"""Counts values into the bins of records/histogram.py, on any device, without a logarithm."""

import torch
from torch import Tensor

from qtool.records.histogram import BINS, COLUMN_BINS, COLUMN_FIRST, COLUMN_MAGNITUDES, MAGNITUDES

_SHIFT = 17
_MASK = BINS - 1


def count_bins(values: Tensor, scratch: Tensor | None = None) -> Tensor:
    """How often each bin occurs in `values` (any shape and floating type): int64 [BINS] on the same device.

    `scratch`, int32 of the same shape, is written over where it is given.
    """
    bits = values.detach().to(torch.float32).contiguous().view(torch.int32)
    # the arithmetic shift repeats the sign bit; the mask keeps one of them
    bins = torch.bitwise_right_shift(bits, _SHIFT, out=scratch).bitwise_and_(_MASK)
    return torch.bincount(bins.view(-1), minlength=BINS)


def count_columns(values: Tensor, counts: Tensor) -> None:
    """Adds `values` [tokens, columns] to the histograms of the columns: `counts` [columns, COLUMN_BINS], or with fewer
    rows, each of them for as many neighbouring columns."""
    bits = values.detach().to(torch.float32).contiguous().view(torch.int32)
    bins = (bits >> _SHIFT).bitwise_and_(_MASK)
    places = (bins & (MAGNITUDES - 1)).sub_(COLUMN_FIRST).clamp_(0, COLUMN_MAGNITUDES - 1)
    places += (bins >= MAGNITUDES) * COLUMN_MAGNITUDES
    columns = torch.arange(values.shape[1], device=values.device, dtype=torch.int32)
    places = places.long() + (columns // (values.shape[1] // len(counts))).long() * COLUMN_BINS
    ones = torch.ones(1, dtype=counts.dtype, device=values.device).expand(places.numel())
    counts.view(-1).scatter_add_(0, places.view(-1), ones)
