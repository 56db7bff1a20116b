"""The layers of a checkpoint as its headers and config.json tell them: no weight is read and no model is built."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from qtool.errors import ModelError
from qtool.formats.compressed_tensors import matches
from qtool.models.checkpoint import KEYS_OF_STORAGE, Checkpoint, open_checkpoint

PLAIN = "none"
_DAMAGED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, re.error)  # of what others wrote
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One matrix: `rows` outputs from `columns` inputs, zero where the header does not tell. `numbers` is int, float8,
    nvfp4, nf4, llm.int8, a block type of GGUF, `none` for a plain 16- or 32-bit matrix, `other` for the rest."""

    name: str
    rows: int = 0
    columns: int = 0
    numbers: str = PLAIN
    bits: int = 16
    group_size: int = -1
    symmetric: bool = True
    activations: str = "none"

    @property
    def scheme(self) -> tuple[object, ...]:
        """What layers that a server merges must have in common."""
        return self.numbers, self.bits, self.group_size, self.symmetric, self.activations


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A checkpoint's format, what config.json says of it, and its layers in the order of their names."""

    place: Path
    format: str
    model_type: str
    settings: Mapping[str, Any]
    layers: tuple[StoredLayer, ...]

    @property
    def quantized(self) -> tuple[StoredLayer, ...]:
        """The layers that are stored as codes."""
        return tuple(layer for layer in self.layers if layer.numbers != PLAIN)


def stored_model(place: Path) -> StoredModel:
    """The checkpoint at `place`: a folder of a variant, a bundle or any Hugging Face model, or a .gguf file. Raises
    ModelError where there is none."""
    if place.suffix == ".gguf" and place.is_file():
        return _of_gguf(place)
    checkpoint = open_checkpoint(place)
    settings: dict[str, Any] = next(
        (checkpoint.config[key] for key in KEYS_OF_STORAGE if checkpoint.config.get(key)), {}
    )
    if not isinstance(settings, dict):
        raise ModelError(f"{place}: quantization_config in config.json is no object")
    name = str(settings.get("quant_method") or (PLAIN if not settings else "unknown"))
    try:
        layers = _READERS.get(name, _unknown)(checkpoint, settings)
    except _DAMAGED as error:
        raise ModelError(f"{place}: quantization_config and tensors do not make sense together: {error!r}") from error
    known = {layer.name for layer in layers}
    layers += [layer for layer in _plain(checkpoint) if layer.name not in known]
    ordered = tuple(sorted(layers, key=lambda layer: _natural(layer.name)))
    return StoredModel(place, name, str(checkpoint.config.get("model_type", "")), settings, ordered)


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in name.split("."))


def _plain(checkpoint: Checkpoint) -> list[StoredLayer]:
    """Matrices in 16 or 32 bits, embeddings left out."""
    found = []
    for name in checkpoint.names:
        layer, _, leaf = name.rpartition(".")
        entry = checkpoint.entries[name]
        is_float = entry.dtype.is_floating_point and entry.dtype.itemsize > 1
        if leaf == "weight" and is_float and len(entry.shape) == 2 and "embed" not in layer:
            found.append(StoredLayer(layer, entry.shape[0], entry.shape[1]))
    return found


def _unknown(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[StoredLayer]:
    return []


def _of_gptq(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[StoredLayer]:
    """Codes along the input; `dynamic` may set other bits and groups for the layers that its patterns name."""
    found = []
    for name, shape in _ending(checkpoint, "qweight").items():
        own = dict(settings)
        for pattern, changes in (settings.get("dynamic") or {}).items():
            if not pattern.startswith("-:") and re.match(pattern.removeprefix("+:"), name):
                own |= changes
        bits = int(own.get("bits", 4))
        group, symmetric = int(own.get("group_size", -1)), bool(own.get("sym", True))
        found.append(StoredLayer(name, shape[1], shape[0] * 32 // bits, "int", bits, group, symmetric))
    return found


def _of_awq(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[StoredLayer]:
    """Codes along the output."""
    bits = int(settings.get("bits") or settings.get("w_bit") or 4)
    group = int(settings.get("group_size") or settings.get("q_group_size") or -1)
    symmetric = not settings.get("zero_point", True)
    return [
        StoredLayer(name, shape[1] * 32 // bits, shape[0], "int", bits, group, symmetric)
        for name, shape in _ending(checkpoint, "qweight").items()
    ]


def _of_bitsandbytes(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[StoredLayer]:
    """NF4 is stored flat, so that its header tells no shape."""
    four = {name.partition(".weight.quant_state.")[0] for name in checkpoint.names if ".weight.quant_state." in name}
    found = [StoredLayer(name, numbers="nf4", bits=4) for name in four]
    for name in _ending(checkpoint, "SCB"):
        rows, columns = checkpoint.shape(f"{name}.weight")
        found.append(StoredLayer(name, rows, columns, numbers="llm.int8", bits=8))
    return found


def _of_compressed_tensors(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> list[StoredLayer]:
    groups = list((settings.get("config_groups") or {}).values())
    found = []
    for name in _ending(checkpoint, "weight_scale"):
        named = (group for group in groups if matches(name, group.get("targets") or ()))
        group = next(named, groups[0] if len(groups) == 1 else {})
        layer = _of_group(name, group)
        packed = f"{name}.weight_packed"
        if packed not in checkpoint.names:
            rows, columns = (*checkpoint.shape(f"{name}.weight"), 0)[:2]
        else:
            rows, words = (*checkpoint.shape(packed), 0)[:2]
            per_word = 2 if checkpoint.dtype(packed) is torch.uint8 else 32 // max(layer.bits, 1)
            columns = words * per_word
        found.append(replace(layer, rows=rows, columns=columns))
    return found


def _of_group(name: str, group: Mapping[str, Any]) -> StoredLayer:
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    kinds = {("int", 4): "int", ("int", 8): "int", ("float", 8): "float8", ("float", 4): "nvfp4"}
    bits = int(weights.get("num_bits") or 0)
    numbers = kinds.get((str(weights.get("type", "int")), bits), "other")
    if numbers == "nvfp4" and weights.get("group_size") != 16:
        numbers = "other"  # MXFP4 has groups of 32
    return StoredLayer(
        name,
        numbers=numbers,
        bits=bits,
        group_size=int(weights.get("group_size") or -1),
        symmetric=bool(weights.get("symmetric", True)),
        activations="none" if not inputs else "dynamic" if inputs.get("dynamic") else "static",
    )


def _ending(checkpoint: Checkpoint, leaf: str) -> dict[str, tuple[int, ...]]:
    """Layers that have a tensor `leaf`, with its shape."""
    return {
        name.removesuffix(f".{leaf}"): checkpoint.shape(name) for name in checkpoint.names if name.endswith(f".{leaf}")
    }


def _of_gguf(path: Path) -> StoredModel:
    from qtool.formats.gguf.read import open_gguf

    file = open_gguf(path)
    layers = []
    for tensor in file.tensors:
        if len(tensor.shape) == 2 and "embd" not in tensor.name:
            kind = tensor.tensor_type.name
            columns, rows = (int(length) for length in tensor.shape)
            numbers = PLAIN if kind in _FLOATS else kind
            layers.append(StoredLayer(tensor.name.removesuffix(".weight"), rows, columns, numbers))
    architecture = str(file.readers[0].fields["general.architecture"].contents())
    ordered = tuple(sorted(layers, key=lambda layer: _natural(layer.name)))
    return StoredModel(path, "gguf", architecture, {}, ordered)


_READERS = {
    PLAIN: _unknown,
    "compressed-tensors": _of_compressed_tensors,
    "gptq": _of_gptq,
    "awq": _of_awq,
    "bitsandbytes": _of_bitsandbytes,
}
