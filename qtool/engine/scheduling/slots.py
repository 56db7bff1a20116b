"""Key-value memory: a fixed number of slots, one sequence each, and what is known about the tokens in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.engine.scheduling.lazy_memory import LazyZeros
from qtool.engine.scheduling.ragged import Step
from qtool.kernels.cpu import native_attention

_SHORTEST_PREFIX = 16  # copying fewer keys than this saves less than looking for them costs


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Keys are [kv_heads, key_width] a token, values [kv_heads, value_width]."""

    heads: int
    key_width: int
    value_width: int


class KeyValueSlots:
    """Keys and values of every layer, [slots, heads, context, width]; zeroed, so that unread cells never hold NaN.

    On a CPU a slot takes memory only for the positions that were written. `room` is how many tokens all slots together
    may hold (None: as many as there are cells); who gives slots away sees to it.
    """

    def __init__(
        self, shapes: dict[int, LayerShape], *, slots: int, context: int, dtype: torch.dtype, device: torch.device,
        room: int | None = None,
    ) -> None:  # fmt: skip
        self.slots = slots
        self.context = context
        self.room = slots * context if room is None else room
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._lazy: list[LazyZeros] = []

        def zeros(heads: int, width: int) -> Tensor:
            shape = slots, heads, context, width
            if device.type != "cpu":
                return torch.zeros(shape, dtype=dtype, device=device)
            self._lazy.append(LazyZeros(shape, dtype))
            return self._lazy[-1].tensor

        for layer, shape in shapes.items():
            self._keys[layer] = zeros(shape.heads, shape.key_width)
            self._values[layer] = zeros(shape.heads, shape.value_width)

    def layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [slots, heads, context, width] each; they stay where they are."""
        return self._keys[layer], self._values[layer]

    def write(self, layer: int, step: Step, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores keys and values [1, heads, tokens, width] where the step's tokens go; the layer's whole memory."""
        stored_keys, stored_values = self._keys[layer], self._values[layer]
        if native_attention.fits(keys, stored_keys, stored_values):
            where = native_attention.Tokens(step.slots, step.positions)
            native_attention.store(keys[0], stored_keys, where)
            native_attention.store(values[0], stored_values, where)
            return stored_keys, stored_values
        stored_keys[step.slots, :, step.positions] = keys[0].transpose(0, 1)
        stored_values[step.slots, :, step.positions] = values[0].transpose(0, 1)
        return stored_keys, stored_values

    def copy_prefix(self, source: int, target: int, tokens: int) -> None:
        """Makes the first `tokens` positions of `target` equal to those of `source`."""
        for memory in (self._keys, self._values):
            for cells in memory.values():
                cells[target, :, :tokens] = cells[source, :, :tokens]

    def clear(self, slot: int, tokens: int | None = None) -> None:
        """Zeroes a slot and gives its memory back, or zeroes its first `tokens`: NaN left there would reach its next
        owner through 0 * NaN."""
        if tokens is None and self._lazy:
            for lazy in self._lazy:
                lazy.clear(slot)
            return
        for memory in (self._keys, self._values):
            for cells in memory.values():
                cells[slot, :, :tokens].zero_()


class SlotRoom:
    """How many tokens each slot takes, against how many all together may: what a request may need is set aside when it
    gets its slot, so that it never waits for memory half-way."""

    def __init__(self, slots: int, tokens: int) -> None:
        self._tokens = tokens
        self._written = [0] * slots  # positions whose memory is taken, also by an owner that left
        self._needed = [0] * slots
        self._left: dict[int, None] = dict.fromkeys(range(slots))  # free slots, the longest free first

    def fits(self, slot: int, needed: int) -> bool:
        """Whether a request of `needed` tokens can have `slot` beside what is taken now."""
        others = sum(self._taken(other) for other in range(len(self._written)) if other != slot)
        return others + max(self._written[slot], needed) <= self._tokens

    def take(self, slot: int, needed: int) -> None:
        """The slot's new owner needs so much."""
        self._needed[slot] = needed
        self._left.pop(slot, None)

    def leave(self, slot: int, written: int) -> None:
        """The owner leaves; what it wrote stays, for prompts that begin alike."""
        self._needed[slot] = 0
        self._written[slot] = max(self._written[slot], written)
        self._left[slot] = None

    def empty(self, slot: int) -> None:
        """The slot's memory was given back."""
        self._written[slot] = 0

    def oldest(self, besides: int) -> int | None:
        """The free slot with something in it that was left the longest ago; None where there is no other."""
        return next((slot for slot in self._left if self._written[slot] and slot != besides), None)

    @property
    def taken(self) -> int:
        """Tokens of all slots together."""
        return sum(self._taken(slot) for slot in range(len(self._written)))

    def _taken(self, slot: int) -> int:
        return max(self._written[slot], self._needed[slot])


class PrefixIndex:
    """Which slot holds which tokens, so that a prompt that starts like an earlier one is not computed again."""

    def __init__(self, slots: int) -> None:
        self._tokens: list[list[int]] = [[] for _ in range(slots)]
        self._heads: dict[tuple[int, ...], set[int]] = {}

    def tokens(self, slot: int) -> list[int]:
        """The tokens whose keys `slot` holds, or soon will; the caller must not change the list."""
        return self._tokens[slot]

    def replace(self, slot: int, tokens: Sequence[int]) -> None:
        """From now on `slot` is being filled with `tokens`."""
        self.forget(slot)
        self._tokens[slot] = list(tokens)
        if len(tokens) >= _SHORTEST_PREFIX:
            self._heads.setdefault(tuple(tokens[:_SHORTEST_PREFIX]), set()).add(slot)

    def forget(self, slot: int) -> None:
        """The slot holds nothing that may be shared."""
        head = tuple(self._tokens[slot][:_SHORTEST_PREFIX])
        sharing = self._heads.get(head)
        if sharing is not None:
            sharing.discard(slot)
            if not sharing:
                del self._heads[head]
        self._tokens[slot] = []

    def best(self, prompt: Sequence[int]) -> tuple[int, int]:
        """The slot that shares most leading tokens with `prompt`, and how many; (-1, 0) where none is worth it."""
        slot, shared = -1, 0
        if len(prompt) <= _SHORTEST_PREFIX:
            return slot, shared
        for candidate in sorted(self._heads.get(tuple(prompt[:_SHORTEST_PREFIX]), ())):
            common = common_prefix(self._tokens[candidate], prompt)
            if common > shared:
                slot, shared = candidate, common
        return slot, shared


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    limit = min(len(first), len(second))
    if first[:limit] == second[:limit]:
        return limit
    low, high = 0, limit - 1
    while low < high:  # slices compare in C: log2(limit) comparisons instead of limit steps
        middle = (low + high + 1) // 2
        if first[:middle] == second[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
