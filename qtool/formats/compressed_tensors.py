"""The format of compressed-tensors: `pack-quantized`, `int-quantized` and `float-quantized`.

What it does: stores codes in 32-bit words along a row, or as they are where inputs have 8 bits too, one scale per group
or row, and a group of settings for each kind of layer in config.json.

When to use it: by default: vLLM, SGLang and transformers read it, and it alone holds layers of different schemes.

What it costs: nothing beside the codes and scales.

When it fails: where a server knows nothing but GPTQ or GGUF.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from qtool.errors import ModelError
from qtool.formats.schemes import LayerScheme
from qtool.formats.stored_weights import StoredFormat, StoredWeight, check_bits, check_shape, signed, unpack_words
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint

QUANT_METHOD = "compressed-tensors"
PACKINGS = ("pack-quantized", "int-quantized", "float-quantized")
SCHEMES = ("w4a16", "w8a16", "w8a8", "fp8")
ONE_SCHEME = False
SYMMETRIC = False

_OF_EXPERT = re.compile(r"(.+)\.\w+\.experts\.\d+\.\w+")


def read_config(
    checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]
) -> dict[str, StoredFormat]:
    """Each layer by the first group of settings whose targets name it."""
    for key in ("sparsity_config", "transform_config", "kv_cache_scheme"):
        if config.get(key):
            raise ModelError(f"{checkpoint.folder}: compressed-tensors with {key}, which qtool does not read")
    groups = config.get("config_groups") or {}
    ignore = tuple(str(entry) for entry in config.get("ignore") or ())
    formats = {}
    for layer in layers:
        if matches(layer.name, ignore):
            continue
        for group in groups.values():
            if matches(layer.name, group["targets"]):
                formats[layer.name] = _scheme(checkpoint, group, str(group.get("format") or config.get("format")))
                break
    return formats


def suffixes(form: StoredFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the tensors a layer must have, and of those it may have."""
    needed: tuple[str, ...] = ("weight", "weight_scale")
    if form.packing == "pack-quantized":
        needed = ("weight_packed", "weight_scale", "weight_shape")
    if not form.symmetric:
        needed += ("weight_zero_point",)
    if form.activations == "static":
        return (*needed, "input_scale"), ("input_zero_point", "weight_zero_point")
    return needed, ("weight_zero_point",)


def decode(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    """The weight of `layer` from its stored tensors, named by suffix."""
    return (_decode_packed if form.packing == "pack-quantized" else _decode_plain)(form, tensors, layer)


def stored_format(scheme: LayerScheme) -> StoredFormat:
    """Packed where the inputs stay in 16 bits, as servers' kernels for both want it."""
    packing = "pack-quantized"
    if scheme.row.rounds_inputs:
        packing = "float-quantized" if scheme.row.kind == "float8" else "int-quantized"
    return StoredFormat(packing, scheme.row.bits, scheme.group_size, scheme.symmetric, scheme.activations)


def scale_dtype(model_dtype: torch.dtype) -> torch.dtype:
    """The model's own."""
    return model_dtype


def encode(layer: str, weight: StoredWeight, form: StoredFormat) -> dict[str, Tensor]:
    """The tensors that stand for the weight, by suffix."""
    if form.packing == "pack-quantized":
        tensors = _packed(weight)
    else:
        tensors = {"weight": weight.codes, "weight_scale": weight.scales}
    if weight.input_scale is not None:
        tensors["input_scale"] = weight.input_scale.to(weight.scales.dtype)
    return tensors


def size(rows: int, columns: int, form: StoredFormat, scale_bytes: int) -> int:
    """Bytes of the stored tensors of a layer of `rows` by `columns`."""
    groups = 1 if form.group_size == -1 else columns // form.group_size
    scales = rows * groups * scale_bytes
    if form.packing == "pack-quantized":
        zeros = 0 if form.symmetric else groups * (-(-rows * form.bits // 32)) * 4
        return scales + rows * (-(-columns * form.bits // 32)) * 4 + 16 + zeros
    return scales + rows * columns + (scale_bytes if form.activations == "static" else 0)


def write_config(schemes: Mapping[str, LayerScheme], kept: Sequence[str], *, head_kept: bool) -> dict[str, Any]:
    """A group of settings for each kind of layer, and the names of what is left alone."""
    from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

    kinds = sorted(set(schemes.values()), key=lambda kind: (kind.scheme, kind.group_size, kind.activations))
    packings = {kind: stored_format(kind).packing for kind in kinds}
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


def files(config: Mapping[str, Any]) -> Mapping[str, str]:
    """None beside config.json."""
    return {}


def short(layers: Sequence[str]) -> list[str]:
    """`layers` as config.json names them: all experts of a block by one pattern, for there may be thousands, and
    servers call the module they lie in by another name than transformers."""
    found = {layer: _OF_EXPERT.fullmatch(layer) for layer in layers}
    return list(
        dict.fromkeys(rf"re:{re.escape(of[1])}\.\w+\.experts\.\d+\..*" if of else layer for layer, of in found.items())
    )


def _scheme(checkpoint: Checkpoint, group: Mapping[str, Any], packing: str) -> StoredFormat:
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    if packing not in PACKINGS or group.get("output_activations"):
        raise ModelError(f"{checkpoint.folder}: compressed-tensors format {packing!r}, which qtool does not read")
    strategy = weights.get("strategy")
    if strategy not in ("tensor", "channel", "group") or weights.get("actorder") in ("group", "dynamic"):
        raise ModelError(f"{checkpoint.folder}: weights by {strategy!r}, which qtool does not read")
    activations: Literal["none", "dynamic", "static"] = "none"
    if inputs:
        activations = "dynamic" if inputs.get("dynamic") else "static"
        wanted = "token" if activations == "dynamic" else "tensor"
        if inputs.get("num_bits") != 8 or inputs.get("strategy") != wanted:
            raise ModelError(f"{checkpoint.folder}: {activations} activations by {inputs.get('strategy')!r}; not read")
    return StoredFormat(
        packing=packing,
        bits=int(weights["num_bits"]),
        group_size=int(weights["group_size"]) if strategy == "group" else -1,
        symmetric=bool(weights.get("symmetric", True)),
        activations=activations,
    )


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether config.json's `patterns` (names, `re:` patterns, or the class Linear) mean the layer `name`."""
    return any(
        re.match(pattern[3:], name) is not None if pattern.startswith("re:") else pattern in (name, "Linear")
        for pattern in patterns
    )


def _decode_packed(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    check_bits(form, layer)
    rows, columns = (int(length) for length in tensors["weight_shape"])
    scales = tensors["weight_scale"]
    words = -(-columns * form.bits // 32)
    groups = 1 if form.group_size == -1 else columns // form.group_size
    check_shape(layer, "weight_packed", tensors["weight_packed"], (rows, words))
    check_shape(layer, "weight_scale", scales, (rows, groups))
    zeros = None
    if not form.symmetric:
        packed = tensors["weight_zero_point"]  # packed along the rows
        zeros = signed(unpack_words(packed.t(), form.bits)[:, :rows].t(), form.bits)
        check_shape(layer, "weight_zero_point", zeros, (rows, groups))
    codes = signed(unpack_words(tensors["weight_packed"], form.bits)[:, :columns], form.bits)
    return _stored(form, tensors, codes, scales, zeros)


def _decode_plain(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    codes, scales = tensors["weight"], tensors["weight_scale"]
    expected = torch.int8 if form.packing == "int-quantized" else torch.float8_e4m3fn
    if codes.dtype is not expected:
        raise ModelError(f"{layer}.weight: {codes.dtype} where {form.packing} stores {expected}")
    rows, columns = codes.shape
    if scales.numel() == 1:
        scales = scales.reshape(1, 1).expand(rows, 1).contiguous()
    groups = 1 if form.group_size == -1 else columns // form.group_size
    check_shape(layer, "weight_scale", scales, (rows, groups))
    zeros = tensors.get("weight_zero_point")
    if form.symmetric or zeros is None or not bool(zeros.any()):
        zeros = None
    return _stored(form, tensors, codes, scales, zeros)


def _stored(
    form: StoredFormat, tensors: Mapping[str, Tensor], codes: Tensor, scales: Tensor, zeros: Tensor | None
) -> StoredWeight:
    input_scale, input_zero = tensors.get("input_scale"), tensors.get("input_zero_point")
    return StoredWeight(
        codes=codes.contiguous(),
        scales=scales,
        zeros=zeros,
        bits=form.bits,
        group_size=form.group_size,
        input_scale=None if input_scale is None else input_scale.float().reshape(1),
        input_zero=None if input_zero is None or not bool(input_zero.any()) else input_zero.reshape(1),
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


def _weight_arguments(kind: LayerScheme) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    return QuantizationArgs(
        num_bits=kind.row.bits,
        type="float" if kind.row.kind == "float8" else "int",
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
        type="float" if kind.row.kind == "float8" else "int",
        symmetric=True,
        strategy="token" if kind.activations == "dynamic" else "tensor",
        dynamic=kind.activations == "dynamic",
    )
