"""Weights that are stored as numbers, read into the place where they stay: no second copy of a whole matrix."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.kernels.dense import DenseKernel
from qtool.kernels.fused import SharedProduct, fuse
from qtool.kernels.linear import KernelLinear
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint

_CHUNK_BYTES = 16 << 20  # read at a time: what lies in memory twice while a matrix is converted


class Source(Protocol):
    """Where the weights of linear layers come from."""

    def weight(self, names: Sequence[str]) -> Tensor: ...
    def bias(self, name: str) -> Tensor | None: ...


class StoredLinears:
    """Weights read from a checkpoint, straight into the type and device they are used in."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device

    def weight(self, names: Sequence[str]) -> Tensor:
        """The weights of `names`, one below the other: [rows of all, columns]."""
        shapes = [self._checkpoint.shape(f"{name}.weight") for name in names]
        joined = torch.empty(sum(shape[0] for shape in shapes), shapes[0][1], dtype=self._dtype, device=self._device)
        first = 0
        for name, shape in zip(names, shapes, strict=True):
            read_into(joined[first : first + shape[0]], self._checkpoint, f"{name}.weight")
            first += shape[0]
        return joined

    def bias(self, name: str) -> Tensor | None:
        """The layer's bias, None where it has none."""
        stored = f"{name}.bias"
        if stored not in self._checkpoint.names:
            return None
        return self._checkpoint.tensor(stored).to(self._device, self._dtype)


class LoadedLinears:
    """Weights of a model that is whole already."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def weight(self, names: Sequence[str]) -> Tensor:
        """The weights of `names`, one below the other: [rows of all, columns]."""
        weights = [self._model.get_parameter(f"{name}.weight").detach() for name in names]
        return weights[0] if len(weights) == 1 else torch.cat(weights)

    def bias(self, name: str) -> Tensor | None:
        """The layer's bias, None where it has none."""
        bias = self._model.get_submodule(name).bias
        return bias.detach() if isinstance(bias, Tensor) else None


def read_into(target: Tensor, checkpoint: Checkpoint, name: str) -> None:
    """Tensor `name` converted into `target`. Raises ModelError where the shapes differ."""
    shape = checkpoint.shape(name)
    if shape != tuple(target.shape):
        raise ModelError(f"{checkpoint.folder}: {name} is {shape}, the model wants {tuple(target.shape)}")
    size = checkpoint.tensor_bytes(name)
    if size <= _CHUNK_BYTES:
        target.copy_(checkpoint.tensor(name))
        return
    rows = max(_CHUNK_BYTES * shape[0] // size, 1)
    for first in range(0, shape[0], rows):
        last = min(first + rows, shape[0])
        target[first:last] = checkpoint.rows(name, first, last)


def plain_layers(model: Any, linears: Sequence[LinearLayer], besides: Mapping[str, object]) -> list[tuple[str, ...]]:
    """Names of plain linear layers, those with the same input side by side; without a head tied to the embedding."""
    embedding = model.get_input_embeddings().weight
    plain = {
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear and module.weight is not embedding and name not in besides
    }
    groups = [layer.fused_group for layer in linears if layer.fused_group and layer.fused_group[0] == layer.name]
    together = [group for group in groups if plain.issuperset(group)]
    grouped = {name for group in together for name in group}
    return [*together, *((name,) for name in sorted(plain - grouped))]


def place_plain(model: nn.Module, names: Sequence[str], source: Source) -> None:
    """Layers with the same input become one product; a large one on a CPU takes oneDNN's own form."""
    modules = [model.get_submodule(name) for name in names]
    rows, columns = [int(module.out_features) for module in modules], int(modules[0].in_features)  # type: ignore[arg-type]
    weight = _checked(source.weight(names), (sum(rows), columns), names)
    kernel = DenseKernel(weight)
    biases = [source.bias(name) for name in names]
    if len(names) > 1:
        shared = SharedProduct(kernel, columns=columns, parts=len(names))
        for name, part in zip(names, fuse(shared, rows, columns, biases), strict=True):
            replace_module(model, name, part)
    elif kernel.prepacked:
        replace_module(model, names[0], KernelLinear(kernel, rows=rows[0], columns=columns, bias=biases[0]))
    elif modules[0].weight.is_meta:
        assign(model, f"{names[0]}.weight", weight)


def _checked(weight: Tensor, shape: tuple[int, int], names: Sequence[str]) -> Tensor:
    if tuple(weight.shape) != shape:
        raise ModelError(f"{', '.join(names)}: stored as {tuple(weight.shape)}, the model wants {shape}")
    return weight


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` where `name` was."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def assign(model: nn.Module, name: str, value: Tensor) -> None:
    """Gives parameter or buffer `name` its tensor."""
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    if leaf in owner._parameters:
        owner._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        owner._buffers[leaf] = value
