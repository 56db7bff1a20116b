"""What a checkpoint calls the tensors of a model: published mixtures of experts have other names than transformers
uses, or all experts of a block lie in one tensor, and GPT-2's matrices lie turned."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.models.checkpoint import Checkpoint, open_checkpoint
from qtool.models.safetensors_header import StoredTensor
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import Experts, TurnedLinear, unfold

_USED_PARTS = ("gate_proj", "down_proj", "up_proj")
_OLD_PARTS = ("w1", "w2", "w3")
_OLD_PLACE = "block_sparse_moe"
_OLD_TYPES = frozenset({"mixtral", "minimax", "minimax_m2", "phimoe"})  # published with the old place and parts
_DEAD_NAMES = ("rotary_emb.inv_freq", "masked_bias", "attn.bias")  # buffers that old checkpoints carry along
_OF_EXPERT = re.compile(r"(.+)\.(\d+)\.(\w+)\.(\w+)")
_OLD_PARENT = re.compile(rf"(.+)\.{_OLD_PLACE}\.(.+)")


class StoredNames:
    """Names of a model after `unfold` and names of its tensors in a checkpoint, each from the other."""

    def __init__(self, model: Any, stored: Iterable[str]) -> None:
        names = frozenset(stored)
        modules = dict(model.named_modules())
        self.places = {name: len(module) for name, module in modules.items() if isinstance(module, Experts)}
        self.turned = frozenset(name for name, module in modules.items() if isinstance(module, TurnedLinear))
        self._modules = frozenset(modules)
        self._parents = frozenset(map(self._module, self.places))
        self._state = frozenset(model.state_dict())
        self._prefix = f"{model.base_model_prefix}."
        joined = any(f"{place}.gate_up_proj" in names for place in self.places)
        by_type = joined and getattr(model.config, "model_type", "") in _OLD_TYPES
        self._old_place = by_type or any(f".{_OLD_PLACE}." in name for name in names)
        self._old_parts = by_type or any((found := _OF_EXPERT.fullmatch(name)) and found[3] == "w1" for name in names)

    def used(self, stored: str) -> str | None:
        """The name the model has for the tensor `stored`, or None for a left-over of old versions that it has not."""
        name = self._with_prefix(stored)
        if name not in self._state and name.endswith(_DEAD_NAMES):
            return None
        if found := _OLD_PARENT.fullmatch(name):
            parents = [f"{found[1]}.{leaf}" for leaf in ("mlp", "feed_forward")]
            name = next((f"{parent}.{found[2]}" for parent in parents if parent in self._parents), name)
        if (found := _OF_EXPERT.fullmatch(name)) and found[1] in self.places and found[3] in _OLD_PARTS:
            part = _USED_PARTS[_OLD_PARTS.index(found[3])]
            name = f"{found[1]}.{found[2]}.{part}.{found[4]}"
        return name

    def stored(self, used: str) -> str:
        """The name under which a checkpoint of this kind keeps what the model calls `used`."""
        name = used
        found = _OF_EXPERT.fullmatch(name)
        if self._old_parts and found and found[1] in self.places and found[3] in _USED_PARTS:
            name = f"{found[1]}.{found[2]}.{_OLD_PARTS[_USED_PARTS.index(found[3])]}.{found[4]}"
        if self._old_place:
            for parent in self._parents:
                if name.startswith(parent + "."):
                    return f"{self._module(parent)}.{_OLD_PLACE}{name.removeprefix(parent)}"
        return name

    def written(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors`, given by the model's names, by the checkpoint's and as it keeps them."""
        return {self.stored(name): tensor.t() if self.is_turned(name) else tensor for name, tensor in tensors.items()}

    def is_turned(self, used: str) -> bool:
        """Whether a checkpoint keeps the tensor `used` as [columns, rows]."""
        layer, _, leaf = used.rpartition(".")
        return leaf == "weight" and layer in self.turned

    def _with_prefix(self, name: str) -> str:
        """Early GPT-2 and OPT files leave the model's own prefix out."""
        longer = self._prefix + name
        return longer if self._module(name) not in self._modules and self._module(longer) in self._modules else name

    @staticmethod
    def _module(name: str) -> str:
        return name.rpartition(".")[0]


def open_as_used(folder: Path, model: nn.Module) -> tuple[Checkpoint, StoredNames]:
    """The weights in `folder` by the names of `model`, which `unfold` has been through: every expert's by itself, and
    every matrix as [rows, columns]. Raises ModelError as open_checkpoint does."""
    checkpoint = open_checkpoint(folder)
    names = StoredNames(model, checkpoint.names)
    entries: dict[str, StoredTensor] = {}
    for stored, entry in checkpoint.entries.items():
        used = names.used(stored)
        place, _, leaf = (used or "").rpartition(".")
        if used is None:
            continue
        if place in names.places and leaf in ("gate_up_proj", "down_proj"):
            entries |= _apart(folder, used, entry, names.places[place])
        elif names.is_turned(used):
            entries[used] = replace(entry, shape=entry.shape[::-1], transposed=True)
        else:
            entries[used] = entry
    return Checkpoint(folder, checkpoint.config, entries), names


def weights_as_used(folder: Path) -> Checkpoint:
    """The weights in `folder` by the names of its model after `unfold`."""
    return open_as_used(folder, unfold(empty_model(folder)))[0]


def _apart(folder: Path, used: str, entry: StoredTensor, experts: int) -> dict[str, StoredTensor]:
    """Each expert's part of the joined tensor `used`: its bytes lie together in the file."""
    place, _, leaf = used.rpartition(".")
    parts = ("gate_proj", "up_proj") if leaf == "gate_up_proj" else ("down_proj",)
    if len(entry.shape) != 3 or entry.shape[0] != experts or entry.shape[1] % len(parts):
        raise ModelError(f"{folder}: {used} is {entry.shape}, which is not {experts} experts of {' and '.join(parts)}")
    shape = (entry.shape[1] // len(parts), entry.shape[2])
    size = entry.bytes // (experts * len(parts))
    return {
        f"{place}.{expert}.{part}.weight": replace(
            entry, shape=shape, bytes=size, offset=entry.offset + (expert * len(parts) + index) * size
        )
        for expert in range(experts)
        for index, part in enumerate(parts)
    }
