"""Tensors of a model as its modules use them, from a checkpoint that may name or split them another way."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qtool.errors import ModelError
from qtool.models.checkpoint import Checkpoint

# parts of one expert, in the order in which the model's tensor of all experts holds them, row under row
_PARTS = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_PLACES = ((".mlp.", ".block_sparse_moe."), (".feed_forward.", ".block_sparse_moe."))  # used, stored


class StoredTensors:
    """Finds what a model calls by one name in a checkpoint: under the same name, without the model's prefix, under the
    name older checkpoints give mixtures of experts, or as one tensor for each part of each expert."""

    def __init__(self, model: Any, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._prefix = f"{model.base_model_prefix}."
        self._stored = frozenset(checkpoint.names)

    def complete(self, model: Any) -> bool:
        """Whether every tensor of `model` is there in its shape; the head may be missing, which is never computed."""
        head = model.get_output_embeddings()
        skipped = {id(tensor) for tensor in head.parameters()} if head is not None else set()
        return all(
            self._has(used, tuple(tensor.shape))
            for used, tensor in model.state_dict(keep_vars=True).items()
            if id(tensor) not in skipped
        )

    def tensor(self, used: str, shape: Sequence[int]) -> Tensor:
        """The tensor that the model calls `used`, read from disk; of experts, one expert at a time."""
        stored = self._whole(used)
        if stored is not None:
            return self._checkpoint.tensor(stored)
        parts = self._parts(used)
        if not parts:
            raise ModelError(
                f"the checkpoint has no tensor for {used}, so it cannot be run block by block; use method rtn"
            )
        whole = torch.empty(tuple(shape), dtype=self._checkpoint.dtype(parts[0][0]))
        for expert, names in enumerate(parts):
            torch.cat([self._checkpoint.tensor(name) for name in names], out=whole[expert])
        return whole

    def _has(self, used: str, shape: tuple[int, ...]) -> bool:
        stored = self._whole(used)
        if stored is not None:
            return self._checkpoint.shape(stored) == shape
        parts = self._parts(used)
        if len(shape) != 3 or len(parts) != shape[0]:
            return False
        for names in parts:
            sizes = [self._checkpoint.shape(name) for name in names]
            if any(size[1:] != shape[2:] for size in sizes) or sum(size[0] for size in sizes) != shape[1]:
                return False
        return True

    def _whole(self, used: str) -> str | None:
        return next((name for name in self._names(used) if name in self._stored), None)

    def _parts(self, used: str) -> list[tuple[str, ...]]:
        """Names of the parts of each expert in order; empty where `used` is no tensor of experts, or one is missing."""
        place, _, leaf = used.rpartition(".")
        for parts in _PARTS.get(leaf, ()):
            for folder in self._names(place):
                found: list[tuple[str, ...]] = []
                while (names := tuple(f"{folder}.{len(found)}.{part}.weight" for part in parts))[0] in self._stored:
                    if not self._stored.issuperset(names):
                        return []
                    found.append(names)
                if found:
                    return found
        return []

    def _names(self, used: str) -> list[str]:
        """What a checkpoint may call `used`: early GPT-2 and OPT files leave the model's own prefix out."""
        names = [used, used.removeprefix(self._prefix)]
        return names + [name.replace(*place, 1) for name in names for place in _PLACES if place[0] in name]
