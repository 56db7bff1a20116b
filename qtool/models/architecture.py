"""A causal model in a few lines: its blocks in order, its linear layers, and which of them are fused by a server."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from qtool.errors import ModelError
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import Experts, TurnedLinear, unfold

_ROUTER = re.compile(r"(^|\.)(router|gate|wg)(\.|$)")
_LONG_CONTEXT_ROPES = ("dynamic", "longrope")
_UNKNOWN_CONTEXT = 2048
_FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """One matrix product: `rows` outputs from `columns` inputs.

    `block` is the decoder block it lies in, None outside of blocks. `fused_group` names the layers (this one included)
    that servers such as vLLM merge into one matrix and that must share a scheme; empty for a layer on its own.
    `transposed` marks GPT-2's Conv1D, whose module holds [columns, rows]; `turned`, one that `unfold` made a linear
    layer of. `experts` names the module of all experts of the block, for a layer of one of them. `beside_text` marks a
    layer of another part of the model than its text decoder: a vision tower, a projector.
    """

    name: str
    rows: int
    columns: int
    block: int | None
    fused_group: tuple[str, ...] = ()
    transposed: bool = False
    bias: bool = False
    turned: bool = False
    experts: str = ""
    beside_text: bool = False

    @property
    def weight(self) -> str:
        """Name of the layer's weight in a checkpoint."""
        return f"{self.name}.weight"


@dataclass(frozen=True, slots=True)
class ExpertStack:
    """The same matrix of every expert of a block in one parameter [experts, rows, columns], or with the last two the
    other way around: transformers' own layout, which `unfold` takes apart where it is the usual one."""

    name: str
    experts: int
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """Names of the blocks in order, the linear layers in order of the module tree, the output head and embedding, the
    weights of experts that are no linear layers, and what decides which experts run, or how much they count."""

    blocks: tuple[str, ...]
    linears: tuple[LinearLayer, ...]
    head: str
    embedding: str
    tied: bool
    stacks: tuple[ExpertStack, ...] = ()
    routers: tuple[str, ...] = ()

    def layer(self, name: str) -> LinearLayer:
        """The linear layer `name`. Raises ModelError when there is none."""
        for layer in self.linears:
            if layer.name == name:
                return layer
        raise ModelError(f"the model has no linear layer {name!r}")

    def in_block(self, block: int) -> tuple[LinearLayer, ...]:
        """Linear layers of decoder block number `block`."""
        return tuple(layer for layer in self.linears if layer.block == block)


def describe(folder: Path) -> Architecture:
    """The architecture of the model in `folder` after `unfold`; no weights are read."""
    return describe_model(unfold(empty_model(folder)))


def describe_model(model: Any) -> Architecture:
    """The architecture of a causal model that is already there as modules."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embedding is None:
        raise ModelError(f"{type(model).__name__}: has no output head or no token embedding")
    names = {module: name for name, module in model.named_modules()}
    if head not in names or embedding not in names:
        raise ModelError(f"{type(model).__name__}: its output head or token embedding is no module of its own")
    blocks = _block_names(model, names[embedding])
    stacks = tuple(
        ExpertStack(name, *map(int, parameter.shape))
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and _block_of(name, blocks) is not None and "expert" in name
    )
    return Architecture(
        blocks=blocks,
        linears=tuple(_linears(model, blocks, _text_part(model, names[embedding], blocks[0], names[head]))),
        head=names[head],
        embedding=names[embedding],
        tied=getattr(head, "weight", None) is getattr(embedding, "weight", head),
        stacks=stacks,
        routers=_routers(model, stacks),
    )


def _block_names(model: nn.Module, embedding: str) -> tuple[str, ...]:
    """Names of the decoder blocks: the entries of the list of modules with linear layers that lies nearest to the token
    embedding, the outermost and first of several. A vision tower's list lies farther away."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and any(map(is_linear, module[0].modules()))
    ]
    if not lists:
        raise ModelError(f"{type(model).__name__}: no list of decoder blocks found in it")
    name, module = max(lists, key=lambda entry: len(_common(entry[0], embedding)))
    return tuple(f"{name}.{index}" for index in range(len(module)))


def _common(first: str, second: str) -> list[str]:
    """The parts that two dotted names begin with alike."""
    parts = []
    for left, right in zip(first.split("."), second.split("."), strict=False):
        if left != right:
            break
        parts.append(left)
    return parts


def _text_part(model: Any, embedding: str, block: str, head: str) -> tuple[str, ...]:
    """Beginnings of the names that belong to the text decoder; all names where a model has nothing but text."""
    if model.config.get_text_config(decoder=True) is model.config:
        return ("",)
    return (".".join(_common(embedding, block)), head)


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a matrix product qtool can store in fewer bits: nn.Linear or GPT-2's Conv1D."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _linears(model: nn.Module, blocks: tuple[str, ...], text: tuple[str, ...]) -> Iterator[LinearLayer]:
    present = {name for name, module in model.named_modules() if is_linear(module)}
    places = _places(model)
    for name, module in model.named_modules():
        if name not in present:
            continue
        transposed = not isinstance(module, nn.Linear)
        weight: Any = module.weight
        rows, columns = reversed(weight.shape) if transposed else weight.shape
        yield LinearLayer(
            name=name,
            rows=int(rows),
            columns=int(columns),
            block=_block_of(name, blocks),
            fused_group=fused_group(name, present),
            transposed=transposed,
            bias=module.bias is not None,
            turned=isinstance(module, TurnedLinear),
            experts=next((place for place in places if name.startswith(place + ".")), ""),
            beside_text=not name.startswith(text),
        )


def _places(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, Experts))


def _routers(model: nn.Module, stacks: tuple[ExpertStack, ...]) -> tuple[str, ...]:
    """What decides among experts: the matrices that lie beside them (routers, and gates of experts that always run)
    and those named so that have one row for each expert, however deep."""
    sizes = {name: len(module) for name, module in model.named_modules() if isinstance(module, Experts)}
    sizes |= {stack.name.rpartition(".")[0]: stack.experts for stack in stacks}
    found: dict[str, None] = {}
    for place, experts in sorted(sizes.items()):
        parent = place.rpartition(".")[0]
        for name, module in model.get_submodule(parent).named_modules():
            weight = getattr(module, "weight", None)
            of_expert = f"{parent}.{name}".startswith(tuple(f"{place}.{digit}" for digit in range(10)))
            if getattr(weight, "ndim", 0) != 2 or not name or of_expert:
                continue
            if "." not in name or (weight.shape[0] == experts and _ROUTER.search(name)):  # type: ignore[union-attr]
                found[f"{parent}.{name}"] = None
    return tuple(found)


def _block_of(name: str, blocks: tuple[str, ...]) -> int | None:
    return next((index for index, block in enumerate(blocks) if name.startswith(block + ".")), None)


def fused_group(name: str, present: Collection[str]) -> tuple[str, ...]:
    """The layers, `name` included, that servers merge into one matrix; empty for a layer on its own."""
    parent, _, leaf = name.rpartition(".")
    for group in _FUSED:
        members = tuple(f"{parent}.{member}" for member in group)
        if leaf in group and all(member in present for member in members):
            return members
    return ()


def longest_context(config: Mapping[str, object]) -> int:
    """Positions the model was made for; rotary scalings that change with length are held to their short form."""
    inner = config.get("text_config")
    own = inner if isinstance(inner, Mapping) and "max_position_embeddings" in inner else config
    longest = _whole(own.get("max_position_embeddings")) or _UNKNOWN_CONTEXT
    for setting in _ropes(own):
        if setting.get("rope_type", setting.get("type")) in _LONG_CONTEXT_ROPES:
            original = setting.get("original_max_position_embeddings", own.get("original_max_position_embeddings"))
            longest = min(longest, _whole(original) or longest)
    return longest


def _ropes(config: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Every rotary setting: one, or one for each kind of layer."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(found, Mapping):
        return []
    inner = [entry for entry in found.values() if isinstance(entry, Mapping)]
    return inner or [found]


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
