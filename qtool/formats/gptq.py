"""The format of GPTQ, versions 1 and 2, as AutoGPTQ and GPTQModel write it.

What it does: stores codes in 32-bit words along the input, zero points one less than they mean (version 1), and scales
in float16.

When to use it: for servers that know GPTQ and nothing else.

What it costs: four bytes a column, for the index of its group.

When it fails: with layers of different schemes, with zero points, and where a scale overflows float16.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qtool.errors import ModelError, NumericError
from qtool.formats.schemes import LayerScheme
from qtool.formats.stored_weights import StoredFormat, StoredWeight, check_bits, check_shape, signed, unpack_words
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint

QUANT_METHOD = "gptq"
PACKINGS = ("gptq", "gptq_v2")
SCHEMES = ("w4a16", "w8a16")
ONE_SCHEME = True
SYMMETRIC = True  # readers disagree on what a zero point of version 1 means


def read_config(
    checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]
) -> dict[str, StoredFormat]:
    """One way for all layers that have packed codes."""
    written = str(config.get("checkpoint_format") or config.get("format") or "gptq")
    if written not in PACKINGS:
        raise ModelError(f"{checkpoint.folder}: GPTQ checkpoint format {written!r}; qtool reads gptq and gptq_v2")
    if any(not str(pattern).startswith("-:") for pattern in config.get("dynamic") or ()):  # "-:" leaves a module alone
        raise ModelError(f"{checkpoint.folder}: GPTQ with settings per module (dynamic), which qtool does not read")
    form = StoredFormat(
        packing=written,
        bits=int(config["bits"]),
        group_size=int(config.get("group_size", -1)),
        symmetric=bool(config.get("sym", True)),
    )
    return {layer.name: form for layer in layers if f"{layer.name}.qweight" in checkpoint.names}


def suffixes(form: StoredFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the tensors a layer must have, and of those it may have."""
    return ("qweight", "qzeros", "scales"), ("g_idx",)


def decode(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    """The weight of `layer` from its stored tensors, named by suffix."""
    check_bits(form, layer)
    codes = signed(unpack_words(tensors["qweight"].t(), form.bits), form.bits)  # packed along the columns
    rows, columns = codes.shape
    groups = 1 if form.group_size == -1 else -(-columns // form.group_size)
    scales = tensors["scales"].t().contiguous()
    check_shape(layer, "scales (transposed)", scales, (rows, groups))
    stored_zeros = unpack_words(tensors["qzeros"], form.bits).t()[:rows]  # packed along the rows
    check_shape(layer, "qzeros (unpacked)", stored_zeros, (rows, groups))
    if form.packing == "gptq":
        if bool((stored_zeros == (1 << form.bits) - 1).any()):
            raise ModelError(f"{layer}: GPTQ v1 with a zero point of 0, which readers disagree on; use gptq_v2")
        stored_zeros = stored_zeros + 1  # v1 stores one less than it means
    zeros = signed(stored_zeros, form.bits).contiguous()
    group = tensors["g_idx"].long() if "g_idx" in tensors else None
    plain = torch.arange(columns, device=codes.device) // (columns if form.group_size == -1 else form.group_size)
    if group is not None and torch.equal(group, plain):
        group = None
    if group is not None and (group.numel() != columns or int(group.min()) < 0 or int(group.max()) >= groups):
        raise ModelError(f"{layer}.g_idx: does not name one of {groups} groups for each of {columns} columns")
    return StoredWeight(
        codes=codes.contiguous(),
        scales=scales,
        zeros=zeros if bool(zeros.any()) else None,
        bits=form.bits,
        group_size=form.group_size,
        group_of_column=group,
    )


def stored_format(scheme: LayerScheme) -> StoredFormat:
    """Version 1."""
    return StoredFormat("gptq", scheme.row.bits, scheme.group_size, scheme.symmetric, scheme.activations)


def scale_dtype(model_dtype: torch.dtype) -> torch.dtype:
    """float16, which is all that its readers take."""
    return torch.float16


def size(rows: int, columns: int, form: StoredFormat, scale_bytes: int) -> int:
    """Bytes of the stored tensors of a layer of `rows` by `columns`."""
    groups = 1 if form.group_size == -1 else columns // form.group_size
    words = -(-columns * form.bits // 32)
    return rows * groups * scale_bytes + rows * words * 4 + groups * (-(-rows * form.bits // 32)) * 4 + columns * 4


def encode(layer: str, weight: StoredWeight, form: StoredFormat) -> dict[str, Tensor]:
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


def write_config(schemes: Mapping[str, LayerScheme], kept: Sequence[str], *, head_kept: bool) -> dict[str, Any]:
    """The settings of the one scheme there is."""
    scheme = next(iter(schemes.values()))
    return {
        "quant_method": "gptq",
        "bits": scheme.row.bits,
        "group_size": scheme.group_size,
        "desc_act": False,
        "sym": True,
        "lm_head": not head_kept,
        "true_sequential": True,
        "static_groups": True,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
        "quantizer": "qtool",
    }


def files(config: Mapping[str, Any]) -> Mapping[str, str]:
    """The settings once more, where AutoGPTQ looks for them."""
    return {"quantize_config.json": json.dumps(config, indent=2) + "\n"}
