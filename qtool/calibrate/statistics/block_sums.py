"""Running statistics of one tensor while rows go by: counted where the model runs, in temporaries that are reused."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from qtool.calibrate.statistics.inputs import (
    ChannelSums,
    Group,
    GroupCounts,
    InputStatistics,
    Kept,
    TokenSample,
    merge_channels,
    no_channels,
    smallest_draws,
)
from qtool.kernels.log2_histogram import count_bins, count_columns
from qtool.records.histogram import COLUMN_BINS, FINITE, MAGNITUDES


class Scratch:
    """One buffer for temporaries of any shape: fresh memory costs more than the arithmetic that fills it."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def floats(self, like: Tensor) -> Tensor:
        """Float32 of the shape and device of `like`, with arbitrary contents; the next call gives the same memory."""
        if self._memory.numel() < like.numel() or self._memory.device != like.device:
            self._memory = torch.empty(like.numel(), device=like.device)
        return self._memory[: like.numel()].view(like.shape)

    def integers(self, like: Tensor) -> Tensor:
        """The same memory as int32."""
        return self.floats(like).view(torch.int32)


class Running:
    """What was seen so far of one tensor of `columns` columns."""

    def __init__(self, columns: int, device: torch.device, kept: Kept, scratch: Scratch) -> None:
        self._columns, self._kept, self._scratch = columns, kept, scratch
        self._column_counts: Tensor | None = None
        if kept.column_group:
            # a single column would need 2**31 tokens to overflow int32; a group of columns gets there sooner
            kind = torch.int32 if kept.column_group == 1 else torch.int64
            shape = (columns // kept.column_group, COLUMN_BINS)
            self._column_counts = torch.zeros(shape, dtype=kind, device=device)
        self._groups: list[GroupCounts] = []
        self._current: Group | None = None
        self._counts = torch.zeros(2 * MAGNITUDES, dtype=torch.int64, device=device)
        self._tokens = 0
        self._low = torch.full((columns,), torch.inf, device=device)
        self._high = torch.full((columns,), -torch.inf, device=device)
        self._channels = no_channels(columns)
        self._held_out: dict[str, ChannelSums] = {}
        self._samples: list[TokenSample] = []

    def add(self, values: Tensor, group: Group, sampled: Mapping[int, float]) -> int:
        """Counts the values of one row, [..., tokens, columns]; returns how many of them are not finite."""
        if self._current is not None and self._current.index != group.index:
            self._close_group()
        self._current = group
        flat = values.detach().reshape(-1, self._columns).to(torch.float32)
        counts = count_bins(flat, self._scratch.integers(flat))
        bad = int(counts[FINITE:MAGNITUDES].sum() + counts[MAGNITUDES + FINITE :].sum())
        if bad or not len(flat):
            return bad
        low, high = flat.amin(0), flat.amax(0)
        self._counts += counts
        self._tokens += len(flat)
        self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        sums = _channel_sums(flat, low, high, self._scratch.floats(flat))
        if group.held_out:
            before = self._held_out.get(group.tag, no_channels(self._columns))
            self._held_out[group.tag] = merge_channels(before, sums)
        else:
            self._channels = merge_channels(self._channels, sums)
            self._add_sample(flat, sampled)
            if self._column_counts is not None:
                count_columns(flat, self._column_counts)
        return 0

    def finish(self, name: str) -> InputStatistics:
        """What was seen, as arrays."""
        if self._current is not None:
            self._close_group()
        nothing = TokenSample(np.zeros(0), np.zeros((0, self._columns), dtype=np.float32))
        sample = smallest_draws([nothing, *self._samples])
        groups = tuple(sorted(self._groups, key=lambda entry: entry.group))
        columns = None if self._column_counts is None else self._column_counts.cpu().numpy()
        return InputStatistics(name, self._columns, groups, self._channels, self._held_out, sample, columns)

    def _add_sample(self, flat: Tensor, sampled: Mapping[int, float]) -> None:
        # an expert sees only some tokens of a row, so a drawn position may not exist in its input
        places = [place for place in sampled if place < len(flat)]
        if places:
            vectors = flat[torch.tensor(places, device=flat.device)].cpu().numpy()
            self._samples.append(TokenSample(np.array([sampled[place] for place in places]), vectors))

    def _close_group(self) -> None:
        assert self._current is not None
        counts = self._counts.cpu().numpy()
        seen = np.flatnonzero(counts)
        if len(seen):
            low, high = self._low.cpu().numpy(), self._high.cpu().numpy()
            self._groups.append(
                GroupCounts(
                    group=self._current.index,
                    tokens=self._tokens,
                    bins=seen.astype(np.int32),
                    counts=counts[seen],
                    low=float(low.min()),
                    high=float(high.max()),
                    columns=np.stack([low, high]) if self._kept.column_steps else None,
                )
            )
        self._counts = torch.zeros_like(self._counts)
        self._tokens = 0
        self._low, self._high = torch.full_like(self._low, torch.inf), torch.full_like(self._high, -torch.inf)


def _channel_sums(flat: Tensor, low: Tensor, high: Tensor, scratch: Tensor) -> ChannelSums:
    # sums of one row are exact enough in float32; over many rows only float64 is
    magnitudes = torch.abs(flat, out=scratch).sum(0)
    parts = (low, high, flat.sum(0), magnitudes, torch.mul(flat, flat, out=scratch).sum(0))
    return ChannelSums(len(flat), *torch.stack(parts).double().cpu().numpy())
