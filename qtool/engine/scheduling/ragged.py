"""One forward pass over rows of different lengths, without padding: tokens of all rows lie one after another."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qtool.kernels.cpu.native_attention import Tokens

_NEGATIVE = torch.finfo(torch.float32).min
_SHORT_AREA = 1 << 12  # query-key pairs of a row up to which looking token by token costs less than masks and padding
_PADDED_AREA = 1 << 15  # below this many wasted query-key pairs one padded call is cheaper than a call a row


@dataclass(frozen=True, slots=True)
class Row:
    """`count` tokens of one sequence, fed from position `start`, whose keys and values live in `slot`."""

    slot: int
    start: int
    count: int

    @property
    def end(self) -> int:
        """Number of keys the last of these tokens sees."""
        return self.start + self.count


@dataclass(slots=True, eq=False)
class Block:
    """Rows that share one attention call: slots first..first+size, `width` queries each, `length` keys.

    `gather` [size * width] says which packed token each padded query is (None: they lie in order already), `scatter`
    which padded queries are real, `tokens` where their outputs go.
    """

    first: int
    size: int
    width: int
    length: int
    gather: Tensor | None
    scatter: Tensor | None
    tokens: Tensor | slice
    query_positions: Tensor
    causal: bool
    full: bool
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)
    _singles: Tokens | None = None

    def singles(self) -> Tokens:
        """Slot and position of each token of a block that is one query wide, in the order of `tokens`."""
        assert self.width == 1
        if self._singles is None:
            positions = self.query_positions[:, 0]
            if self.scatter is None:
                slots = torch.arange(self.first, self.first + self.size, device=positions.device)
            else:
                slots, positions = self.scatter + self.first, positions[self.scatter]
            self._singles = Tokens(slots, positions.contiguous())
        return self._singles

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """Additive mask [size, 1, width, length]; None where every query sees every key. `window` counts the token."""
        if window not in self.masks:
            self.masks[window] = self._build(window, dtype)
        return self.masks[window]

    def _build(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        if window is not None and window >= self.length:
            return self.mask(None, dtype)
        if self.full and window is None:
            return None
        keys = torch.arange(self.length, device=self.query_positions.device)
        queries = self.query_positions[:, :, None]
        seen = keys <= queries
        if window is not None:
            seen &= keys > queries - window
        hidden = max(_NEGATIVE, torch.finfo(dtype).min)
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, hidden)[:, None]


@dataclass(slots=True, eq=False)
class Step:
    """What one forward pass needs besides the token ids: the slot and position of each token, the attention blocks.

    `blocks` cover every token exactly once. `short`: rows are slots and their prompts so short that each token may look
    for its keys by itself.
    """

    tokens: int
    positions: Tensor
    slots: Tensor
    blocks: tuple[Block, ...]
    short: bool = False


def plan_step(rows: Sequence[Row], device: torch.device) -> Step:
    """The step that feeds `rows`, in this order: decoding rows in one block, longer ones together where cheap."""
    starts: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    for row in rows:
        starts.append(len(positions))
        positions.extend(range(row.start, row.end))
        slots.extend([row.slot] * row.count)
    blocks = [
        _block([rows[index] for index in members], [starts[index] for index in members], len(rows), device)
        for members in _partition(rows)
    ]
    where = torch.tensor([positions, slots], device=device)
    short = all(row.count == 1 or row.count * row.end <= _SHORT_AREA for row in rows)
    return Step(len(positions), where[0], where[1], tuple(blocks), short)


def _partition(rows: Sequence[Row]) -> list[list[int]]:
    """Indices of rows that go into one attention call each, in slot order inside a call."""
    single = [index for index, row in enumerate(rows) if row.count == 1]
    longer = [index for index, row in enumerate(rows) if row.count > 1]
    return [part for group in (single, longer) for part in _split(rows, group)]


def _split(rows: Sequence[Row], members: list[int]) -> list[list[int]]:
    """`members` as one padded call, or halved by length until the padding is worth less than another call."""
    if len(members) < 2:
        return [members] if members else []
    slots = [rows[index].slot for index in members]
    span = max(slots) - min(slots) + 1
    padded = span * max(rows[index].count for index in members) * max(rows[index].end for index in members)
    useful = sum(rows[index].count * rows[index].end for index in members)
    if padded - useful <= _PADDED_AREA or padded <= useful * 1.25:
        return [sorted(members, key=lambda index: rows[index].slot)]
    ordered = sorted(members, key=lambda index: rows[index].slot)
    middle = len(ordered) // 2
    return _split(rows, ordered[:middle]) + _split(rows, ordered[middle:])


def _block(rows: Sequence[Row], starts: Sequence[int], total_rows: int, device: torch.device) -> Block:
    first = rows[0].slot
    size = rows[-1].slot - first + 1
    width = max(row.count for row in rows)
    length = max(row.end for row in rows)
    in_order = size == len(rows) and all(row.count == width for row in rows)
    contiguous = all(starts[i] + width == starts[i + 1] for i in range(len(starts) - 1))
    position_rows = [[0] * width for _ in range(size)]
    for row in rows:
        position_rows[row.slot - first][: row.count] = range(row.start, row.end)
    query_positions = torch.tensor(position_rows, device=device)
    full = in_order and width == 1 and all(row.end == length for row in rows)
    causal = in_order and size == 1 and rows[0].start == 0
    if in_order and contiguous:
        tokens = slice(starts[0], starts[0] + size * width)
        return Block(first, size, width, length, None, None, tokens, query_positions, causal, full)
    gather = [0] * (size * width)
    scatter: list[int] = []
    where: list[int] = []
    for row, start in zip(rows, starts, strict=True):
        offset = (row.slot - first) * width
        gather[offset : offset + row.count] = range(start, start + row.count)
        scatter.extend(range(offset, offset + row.count))
        where.extend(range(start, start + row.count))
    return Block(
        first,
        size,
        width,
        length,
        torch.tensor(gather, device=device),
        torch.tensor(scatter, device=device),
        torch.tensor(where, device=device),
        query_positions,
        causal,
        full,
    )
