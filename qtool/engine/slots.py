"""Key-value memory: a fixed number of slots, one sequence each, and what is known about the tokens in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.engine.ragged import Step
from qtool.kernels import native_attention

_SHORTEST_PREFIX = 16  # copying fewer keys than this saves less than looking for them costs


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Keys are [kv_heads, key_width] a token, values [kv_heads, value_width]."""

    heads: int
    key_width: int
    value_width: int


class KeyValueSlots:
    """Keys and values of every layer, [slots, heads, context, width]; zeroed, so that unread cells never hold NaN."""

    def __init__(
        self, shapes: dict[int, LayerShape], *, slots: int, context: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.slots = slots
        self.context = context
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        for layer, shape in shapes.items():
            cells = slots, shape.heads, context
            self._keys[layer] = torch.zeros(*cells, shape.key_width, dtype=dtype, device=device)
            self._values[layer] = torch.zeros(*cells, shape.value_width, dtype=dtype, device=device)

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
        """Zeroes a slot, or its first `tokens`: NaN left there would reach its next owner through 0 * NaN."""
        for memory in (self._keys, self._values):
            for cells in memory.values():
                cells[slot, :, :tokens].zero_()


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

    def truncate(self, slot: int, tokens: int) -> None:
        """Only the first `tokens` of the slot were computed."""
        if tokens < len(self._tokens[slot]):
            self.replace(slot, self._tokens[slot][:tokens])

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
