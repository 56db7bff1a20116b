"""What a checkpoint calls the tensors of a model. transformers' own translation tells it for every architecture; here
it is continued to the model after `unfold`: experts are layers of their own, and all matrices lie one way.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.formats.safetensors_header import StoredTensor
from qtool.models.checkpoint import Checkpoint, ComputedTensor, open_checkpoint
from qtool.models.conversion import Conversion, Translation
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import Experts, TurnedLinear, unfold

Entry = StoredTensor | ComputedTensor

_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_USED_PARTS = ("gate_proj", "down_proj", "up_proj")
_OLD_PARTS = ("w1", "w2", "w3")
_OLD_PLACE = "block_sparse_moe"
_OLD_TYPES = frozenset({"mixtral", "minimax", "minimax_m2", "phimoe"})  # published with the old place and parts
_OF_EXPERT = re.compile(r"(.+)\.(\d+)\.(\w+)\.(\w+)")


class StoredNames:
    """Names of a model after `unfold` and names of its tensors in a checkpoint, each from the other."""

    def __init__(self, model: Any, stored: Iterable[str]) -> None:
        names = frozenset(stored)
        modules = dict(model.named_modules())
        self.places = {name: len(module) for name, module in modules.items() if isinstance(module, Experts)}
        self.turned = frozenset(name for name, module in modules.items() if isinstance(module, TurnedLinear))
        self._parents = frozenset(place.rpartition(".")[0] for place in self.places)
        joined = [f"{place}.{leaf}" for place in self.places for leaf in _PARTS]
        self.state = frozenset(model.state_dict())
        translation = Translation(model, [*self.state, *joined])
        self._ignored = translation.ignored
        self._translation = translation
        self.renamed, self.conversions = self._translated(names)
        # what transformers holds joined was published one expert at a time: variants are written as published
        by_type = getattr(model.config, "model_type", "") in _OLD_TYPES and any(name in names for name in joined)
        self._old = by_type
        self._back = {} if by_type else {used: name for name, used in self.renamed.items()}

    def used(self, stored: str) -> str | None:
        """The name the model has for the tensor `stored`, or None for one that it leaves unread or does not have."""
        renamed = self.renamed if stored in self.renamed else self._translated([stored])[0]
        name = renamed.get(stored)
        return None if name is None or self.is_ignored(name) else name

    def is_ignored(self, name: str) -> bool:
        """Whether transformers leaves a tensor of that name unread on purpose."""
        return name not in self.state and self._ignored is not None and self._ignored.search(name) is not None

    def stored(self, used: str) -> str:
        """The name under which a checkpoint of this kind keeps what the model calls `used`."""
        layer, _, leaf = used.rpartition(".")
        if used in self._back:
            return self._back[used]
        weight = self._back.get(f"{layer}.weight", "")
        if weight.endswith(".weight"):
            return weight.removesuffix("weight") + leaf
        name = used
        found = _OF_EXPERT.fullmatch(name)
        if self._old and found and found[1] in self.places and found[3] in _USED_PARTS:
            name = f"{found[1]}.{found[2]}.{_OLD_PARTS[_USED_PARTS.index(found[3])]}.{found[4]}"
        for parent in self._parents if self._old else ():
            if name.startswith(parent + "."):
                return f"{parent.rpartition('.')[0]}.{_OLD_PLACE}{name.removeprefix(parent)}"
        return name

    def written(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors`, given by the model's names, by the checkpoint's and as it keeps them."""
        return {self.stored(name): tensor.t() if self.is_turned(name) else tensor for name, tensor in tensors.items()}

    def is_turned(self, used: str) -> bool:
        """Whether a checkpoint keeps the tensor `used` as [columns, rows]."""
        layer, _, leaf = used.rpartition(".")
        return leaf == "weight" and layer in self.turned

    def _translated(self, stored: Iterable[str]) -> tuple[dict[str, str], tuple[Conversion, ...]]:
        renamed, conversions = self._translation.of(stored)
        computed: list[Conversion] = []
        for conversion in conversions:
            if self._is_stack(conversion):
                renamed |= self._of_experts(conversion)
            elif conversion.quantized:  # no operation on numbers holds for codes: they were written under this name
                renamed |= {name: name for name, _ in conversion.sources}
            else:
                computed.append(conversion)
        return renamed, tuple(computed)

    def _is_stack(self, conversion: Conversion) -> bool:
        """Whether a conversion only joins experts that are layers of their own here."""
        place, _, leaf = conversion.target.rpartition(".")
        parts = len(conversion.converter.source_patterns)
        return conversion.merges_experts and place in self.places and parts == len(_PARTS.get(leaf, ()))

    @staticmethod
    def _of_experts(conversion: Conversion) -> dict[str, str]:
        place, _, leaf = conversion.target.rpartition(".")
        patterns = list(conversion.converter.source_patterns)
        found = {}
        for name, pattern in conversion.sources:
            expert = re.findall(r"\.(\d+)(?=\.)", name)[-1]
            found[name] = f"{place}.{expert}.{_PARTS[leaf][patterns.index(pattern)]}.{name.rpartition('.')[2]}"
        return found


def open_as_used(folder: Path, model: nn.Module) -> tuple[Checkpoint, StoredNames]:
    """The weights in `folder` by the names of `model`, which `unfold` has been through: every expert's by itself, and
    every matrix as [rows, columns]. Raises ModelError as open_checkpoint does."""
    checkpoint = open_checkpoint(folder)
    names = StoredNames(model, checkpoint.names)
    entries: dict[str, Entry] = {}
    for stored in names.renamed:
        if (used := names.used(stored)) is not None:
            entries |= _as_held(folder, used, checkpoint.entries[stored], names)
    for conversion in names.conversions:
        for used, entry in _computed(conversion, checkpoint, model).items():
            entries |= _as_held(folder, used, entry, names)
    return Checkpoint(folder, checkpoint.config, entries), names


def weights_as_used(folder: Path) -> Checkpoint:
    """The weights in `folder` by the names of its model after `unfold`."""
    return open_as_used(folder, unfold(empty_model(folder)))[0]


def _as_held(folder: Path, used: str, entry: Entry, names: StoredNames) -> dict[str, Entry]:
    """The tensor that transformers calls `used`, as the unfolded model holds it: apart, turned, or as it is."""
    place, _, leaf = used.rpartition(".")
    if place in names.places and leaf in _PARTS:
        return _apart(folder, used, entry, names.places[place])
    if not names.is_turned(used):
        return {used: entry}
    if isinstance(entry, ComputedTensor):
        turned = replace(entry, shape=entry.shape[::-1], make=lambda: entry.make().t().contiguous())
        return {used: turned}
    return {used: replace(entry, shape=entry.shape[::-1], transposed=True)}


def _apart(folder: Path, used: str, entry: Entry, experts: int) -> dict[str, Entry]:
    """Each expert's part of the joined tensor `used`: its bytes lie together in the file."""
    place, _, leaf = used.rpartition(".")
    parts = _PARTS[leaf]
    if len(entry.shape) != 3 or entry.shape[0] != experts or entry.shape[1] % len(parts):
        raise ModelError(f"{folder}: {used} is {entry.shape}, which is not {experts} experts of {' and '.join(parts)}")
    rows = entry.shape[1] // len(parts)
    shape = (rows, entry.shape[2])
    size = entry.bytes // (experts * len(parts))
    found: dict[str, Entry] = {}
    for expert in range(experts):
        for index, part in enumerate(parts):
            name = f"{place}.{expert}.{part}.weight"
            if isinstance(entry, ComputedTensor):
                make = functools.partial(_slice, entry, expert, index * rows, rows)
                found[name] = replace(entry, shape=shape, make=make)
            else:
                offset = entry.offset + (expert * len(parts) + index) * size
                found[name] = replace(entry, shape=shape, bytes=size, offset=offset)
    return found


def _slice(entry: ComputedTensor, expert: int, first: int, rows: int) -> Tensor:
    return entry.make()[expert, first : first + rows].contiguous()


def _computed(conversion: Conversion, checkpoint: Checkpoint, model: Any) -> dict[str, Entry]:
    """What a conversion makes, its shapes told by converting empty tensors; the last one computed is kept at hand."""
    stored = [name for name, _ in conversion.sources]
    like = {name: _meta(checkpoint, name) for name in stored}

    @functools.lru_cache(maxsize=1)
    def make() -> dict[str, Tensor]:
        return conversion.compute({name: checkpoint.tensor(name) for name in stored}, model)

    path = checkpoint.entries[stored[0]].path
    return {
        name: ComputedTensor(tuple(made.shape), made.dtype, path, functools.partial(_pick, make, name))
        for name, made in conversion.compute(like, model).items()
    }


def _pick(make: Any, name: str) -> Tensor:
    tensor: Tensor = make()[name]
    return tensor.contiguous().clone()


def _meta(checkpoint: Checkpoint, name: str) -> Tensor:
    import torch

    return torch.empty(checkpoint.shape(name), dtype=checkpoint.dtype(name), device="meta")
