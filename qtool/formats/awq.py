"""The format of AWQ (GEMM order), as AutoAWQ writes it. It is read, not written.

What it does: reads codes of 4 bits in 32-bit words along the output, in the order that its kernels want.

When to use it: to import or serve a checkpoint that somebody else made.

What it costs: nothing.

When it fails: for the versions gemv and marlin, and for other widths than 4 bits.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from qtool.errors import ModelError
from qtool.formats.stored_weights import StoredFormat, StoredWeight, check_shape, signed, unpack_words
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint

QUANT_METHOD = "awq"
PACKINGS = ("awq",)
SCHEMES: tuple[str, ...] = ()

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output column that nibble i of a word holds


def read_config(
    checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]
) -> dict[str, StoredFormat]:
    """One way for all layers that have packed codes."""
    version = str(config.get("version") or config.get("format") or "gemm").lower()
    if version != "gemm":
        raise ModelError(f"{checkpoint.folder}: AWQ version {version!r}; qtool reads gemm")
    bits = int(config.get("bits") or config.get("w_bit") or 4)
    group_size = int(config.get("group_size") or config.get("q_group_size") or -1)
    form = StoredFormat(packing="awq", bits=bits, group_size=group_size, symmetric=not config.get("zero_point", True))
    return {layer.name: form for layer in layers if f"{layer.name}.qweight" in checkpoint.names}


def suffixes(form: StoredFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the tensors a layer must have, and of those it may have."""
    return ("qweight", "qzeros", "scales"), ()


def decode(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    """The weight of `layer` from its stored tensors, named by suffix."""
    if form.bits != 4:
        raise ModelError(f"{layer}: AWQ stores 4 bits, not {form.bits}")
    order = torch.argsort(torch.tensor(_ORDER, device=tensors["qweight"].device))

    def along_rows(words: Tensor) -> Tensor:  # [n, rows / 8] -> int8 [rows, n]
        nibbles = unpack_words(words, 4).reshape(len(words), -1, 8)
        return signed(nibbles[:, :, order].flatten(1).t(), 4).contiguous()

    codes, zeros = along_rows(tensors["qweight"]), along_rows(tensors["qzeros"])
    scales = tensors["scales"].t().contiguous()
    groups = 1 if form.group_size == -1 else codes.shape[1] // form.group_size
    check_shape(layer, "scales (transposed)", scales, (codes.shape[0], groups))
    check_shape(layer, "qzeros (unpacked)", zeros, (codes.shape[0], groups))
    return StoredWeight(codes, scales, zeros if bool(zeros.any()) else None, form.bits, form.group_size)
