"""Quantized layers as the tensors and the config entries of a checkpoint: compressed-tensors and GPTQ v1."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from qtool.errors import NumericError
from qtool.formats.stored_weights import Packing, StoredFormat, StoredWeight
from qtool.quantize.contract import Grid
from qtool.quantize.request.recipe import SCHEMES
from qtool.records.variant import Recipe

_OF_EXPERT = re.compile(r"(.+)\.\w+\.experts\.\d+\.\w+")


@dataclass(frozen=True, slots=True)
class LayerScheme:
    """What one layer is stored as. Layers with equal schemes share a group of the config."""

    scheme: str
    group_size: int
    symmetric: bool
    activations: Literal["none", "dynamic", "static"]

    def grid(self, scale_dtype: torch.dtype) -> Grid:
        """The grid its weights are rounded to."""
        kind: Literal["int", "float8"] = "float8" if self.scheme == "fp8" else "int"
        return Grid(kind, SCHEMES[self.scheme].bits, self.group_size, self.symmetric, scale_dtype)

    def dynamic(self) -> "LayerScheme":
        """The same with a scale for each token's input."""
        return replace(self, activations="dynamic")

    def stored_format(self, layout: str) -> StoredFormat:
        """How a checkpoint of format `layout` holds it."""
        bits = SCHEMES[self.scheme].bits
        packing: Packing = "gptq" if layout == "gptq" else "pack-quantized"
        if layout != "gptq" and self.scheme in ("w8a8", "fp8"):
            packing = "int-quantized" if self.scheme == "w8a8" else "float-quantized"
        return StoredFormat(packing, bits, self.group_size, self.symmetric, self.activations)


def scale_dtype(layout: str, model_dtype: torch.dtype) -> torch.dtype:
    """The type scales are stored in: the model's own, or float16, which is all that GPTQ readers take."""
    return torch.float16 if layout == "gptq" else model_dtype


def layer_tensors(layer: str, weight: StoredWeight, form: StoredFormat) -> dict[str, Tensor]:
    """The tensors that stand for the weight of `layer` in a checkpoint, by their full names."""
    if form.packing == "gptq":
        tensors = _gptq(layer, weight)
    elif form.packing == "pack-quantized":
        tensors = _packed(weight)
    else:
        tensors = {"weight": weight.codes, "weight_scale": weight.scales}
    if weight.input_scale is not None:
        tensors["input_scale"] = weight.input_scale.to(weight.scales.dtype)
    return {f"{layer}.{suffix}": tensor.contiguous() for suffix, tensor in tensors.items()}


def layer_bytes(rows: int, columns: int, form: StoredFormat, scale_bytes: int) -> int:
    """Size of the stored tensors of one layer of `rows` by `columns`."""
    groups = 1 if form.group_size == -1 else columns // form.group_size
    words = -(-columns * form.bits // 32)
    size = rows * groups * scale_bytes
    if form.packing == "gptq":
        return size + rows * words * 4 + groups * (-(-rows * form.bits // 32)) * 4 + columns * 4
    if form.packing == "pack-quantized":
        zeros = 0 if form.symmetric else groups * (-(-rows * form.bits // 32)) * 4
        return size + rows * words * 4 + 16 + zeros
    return size + rows * columns + (scale_bytes if form.activations == "static" else 0)


def quantization_config(recipe: Recipe, schemes: Mapping[str, LayerScheme], kept: Sequence[str]) -> dict[str, Any]:
    """`quantization_config` of config.json for layers stored by `schemes`; the linear layers `kept` are left alone."""
    if recipe.format == "gptq":
        return _gptq_config(recipe)
    return _compressed_tensors_config(schemes, kept)


def short(layers: Sequence[str]) -> list[str]:
    """`layers` as config.json names them: all experts of a block by one pattern, for there may be thousands, and
    servers call the module they lie in by another name than transformers."""
    found = {layer: _OF_EXPERT.fullmatch(layer) for layer in layers}
    return list(
        dict.fromkeys(rf"re:{re.escape(of[1])}\.\w+\.experts\.\d+\..*" if of else layer for layer, of in found.items())
    )


def _packed(weight: StoredWeight) -> dict[str, Tensor]:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    tensors = {
        "weight_packed": pack_to_int32(weight.codes, weight.bits),
        "weight_scale": weight.scales,
        "weight_shape": torch.tensor(weight.codes.shape, dtype=torch.int64),
    }
    if weight.zeros is not None:
        tensors["weight_zero_point"] = pack_to_int32(weight.zeros.contiguous(), weight.bits, packed_dim=0)
    return tensors


def _gptq(layer: str, weight: StoredWeight) -> dict[str, Tensor]:
    """Version 1: codes along the input, zero points one less than they mean, scales in float16."""
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    rows, columns = weight.codes.shape
    if not bool(torch.isfinite(weight.scales.to(torch.float16)).all()):
        raise NumericError(f"{layer}: a scale overflows float16, which GPTQ stores; use format compressed-tensors")
    size = columns if weight.group_size == -1 else weight.group_size
    groups = weight.scales.shape[1]
    middle = torch.full((groups, rows), -1, dtype=torch.int8)  # symmetric: 2^(bits-1), stored minus one
    return {
        "qweight": pack_to_int32(weight.codes, weight.bits).t(),
        "qzeros": pack_to_int32(middle, weight.bits),
        "scales": weight.scales.to(torch.float16).t(),
        "g_idx": (torch.arange(columns, dtype=torch.int32) // size).to(torch.int32),
    }


def _compressed_tensors_config(schemes: Mapping[str, LayerScheme], kept: Sequence[str]) -> dict[str, Any]:
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

    kinds = sorted(set(schemes.values()), key=lambda kind: (kind.scheme, kind.group_size, kind.activations))
    packings = {kind: kind.stored_format("compressed-tensors").packing for kind in kinds}
    groups = {}
    for index, kind in enumerate(kinds):
        named = [layer for layer, scheme in schemes.items() if scheme == kind]
        groups[f"group_{index}"] = QuantizationScheme(
            targets=["Linear"] if len(kinds) == 1 else short(named),
            weights=_weight_arguments(kind),
            input_activations=_input_arguments(kind),
            format=packings[kind],
        )
    written = set(packings.values())
    config = QuantizationConfig(
        config_groups=groups,
        quant_method="compressed-tensors",
        quantization_status="compressed",
        format=next(iter(written)) if len(written) == 1 else "mixed-precision",
        ignore=short(kept),
    )
    document: dict[str, Any] = config.model_dump(mode="json")
    if any(not kind.symmetric for kind in kinds):
        # transformers' compressed layers have no place for zero points as stored; servers do not know the key
        document["dequantize"] = True
    return document


def _weight_arguments(kind: LayerScheme) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs(
        num_bits=SCHEMES[kind.scheme].bits,
        type="float" if kind.scheme == "fp8" else "int",
        symmetric=kind.symmetric,
        strategy="channel" if kind.group_size == -1 else "group",
        group_size=None if kind.group_size == -1 else kind.group_size,
        dynamic=False,
    )


def _input_arguments(kind: LayerScheme) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    if kind.activations == "none":
        return None
    return QuantizationArgs(
        num_bits=8,
        type="float" if kind.scheme == "fp8" else "int",
        symmetric=True,
        strategy="token" if kind.activations == "dynamic" else "tensor",
        dynamic=kind.activations == "dynamic",
    )


def _gptq_config(recipe: Recipe) -> dict[str, Any]:
    return {
        "quant_method": "gptq",
        "bits": SCHEMES[recipe.scheme].bits,
        "group_size": recipe.group_size,
        "desc_act": False,
        "sym": True,
        "lm_head": "lm_head" not in recipe.skip,
        "true_sequential": True,
        "static_groups": True,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "quantizer": "qtool",
    }
