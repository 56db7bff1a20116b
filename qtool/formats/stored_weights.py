"""Quantized weights as checkpoints store them, turned into codes and scales, and codes and scales into numbers.

Pure functions of tensors: nothing here reads a file. Formats: compressed-tensors `pack-quantized`, `int-quantized`,
`float-quantized`; GPTQ v1 and v2; AWQ (GEMM order).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qtool.errors import ModelError

Packing = Literal["pack-quantized", "int-quantized", "float-quantized", "gptq", "gptq_v2", "awq"]

_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # output column that nibble i of a word holds


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """How one layer lies in a checkpoint. `group_size` is -1 for one scale a row.

    `activations` is what the layer's input is quantized to 8 bits by: nothing, a scale per token found while running,
    or one stored scale for the tensor.
    """

    packing: Packing
    bits: int
    group_size: int
    symmetric: bool
    activations: Literal["none", "dynamic", "static"] = "none"


@dataclass(frozen=True, slots=True, eq=False)
class StoredWeight:
    """One weight [rows, columns] as codes: value = (codes - zeros) * scales.

    codes   int8 [rows, columns], from -2^(bits-1) to 2^(bits-1) - 1, or float8_e4m3fn
    scales  [rows, groups], in the type they are stored in
    zeros   int8 [rows, groups], or None where all are zero
    group_of_column  int64 [columns], or None where column c belongs to group c // group_size
    input_scale      float32 [1], the stored scale of the layer's 8-bit input, or None
    input_zero       int8 [1], the stored zero point of the layer's 8-bit input, or None where it is zero
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    group_size: int
    group_of_column: Tensor | None = None
    input_scale: Tensor | None = None
    input_zero: Tensor | None = None


def dequantize(weight: StoredWeight) -> Tensor:
    """The numbers [rows, columns] that `weight` stands for, in the type of its scales, as compressed-tensors computes
    them: the code is exact in every scale type, the product is rounded once."""
    columns = weight.codes.shape[1]
    values = weight.codes.to(weight.scales.dtype)
    if weight.group_of_column is None and columns % weight.scales.shape[1] == 0:
        rows, groups = weight.scales.shape
        grouped = values.reshape(rows, groups, columns // groups)
        if weight.zeros is not None:
            grouped = grouped - weight.zeros.to(weight.scales.dtype)[:, :, None]
        return (grouped * weight.scales[:, :, None]).reshape(rows, columns)
    group = group_index(weight)
    if weight.zeros is not None:
        values = values - weight.zeros.to(weight.scales.dtype)[:, group]
    return values * weight.scales[:, group]


def group_index(weight: StoredWeight) -> Tensor:
    """Which group each column belongs to: int64 [columns]."""
    if weight.group_of_column is not None:
        return weight.group_of_column
    columns = weight.codes.shape[1]
    size = columns if weight.group_size == -1 else weight.group_size
    return torch.arange(columns, device=weight.codes.device) // size


def tensor_suffixes(form: StoredFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names, after the layer's own and a dot, of the tensors a layer in `form` must have, and of those it may have."""
    if form.packing in ("gptq", "gptq_v2"):
        return ("qweight", "qzeros", "scales"), ("g_idx",)
    if form.packing == "awq":
        return ("qweight", "qzeros", "scales"), ()
    needed: tuple[str, ...] = ("weight", "weight_scale")
    if form.packing == "pack-quantized":
        needed = ("weight_packed", "weight_scale", "weight_shape")
    if not form.symmetric:
        needed += ("weight_zero_point",)
    if form.activations == "static":
        return (*needed, "input_scale"), ("input_zero_point", "weight_zero_point")
    return needed, ("weight_zero_point",)


def decode(form: StoredFormat, tensors: Mapping[str, Tensor], *, layer: str) -> StoredWeight:
    """The weight of `layer` from its stored tensors, named by suffix. Raises ModelError where they do not fit."""
    needed, allowed = tensor_suffixes(form)
    missing = sorted(set(needed) - set(tensors))
    unexpected = sorted(set(tensors) - set(needed) - set(allowed))
    if missing or unexpected:
        raise ModelError(
            f"{layer}: stored as {form.packing}, but "
            + "; ".join(f"{what} {', '.join(names)}" for what, names in _named(missing, unexpected))
        )
    if form.packing == "pack-quantized":
        return _decode_packed(form, tensors, layer)
    if form.packing in ("int-quantized", "float-quantized"):
        return _decode_plain(form, tensors, layer)
    if form.packing == "awq":
        return _decode_awq(form, tensors, layer)
    return _decode_gptq(form, tensors, layer)


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """Codes of int32 `words` along the last dimension, least significant first: [n, w] -> uint8 [n, w * 32 / bits]."""
    as_bytes = words.contiguous().view(torch.uint8)
    if bits == 8:
        return as_bytes
    return torch.stack((as_bytes & 0xF, as_bytes >> 4), dim=-1).flatten(-2)


def _named(missing: list[str], unexpected: list[str]) -> list[tuple[str, list[str]]]:
    return [(what, names) for what, names in (("has no", missing), ("also has", unexpected)) if names]


def _decode_packed(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    _check_bits(form, layer)
    rows, columns = (int(length) for length in tensors["weight_shape"])
    scales = tensors["weight_scale"]
    words = -(-columns * form.bits // 32)
    groups = 1 if form.group_size == -1 else columns // form.group_size
    _check_shape(layer, "weight_packed", tensors["weight_packed"], (rows, words))
    _check_shape(layer, "weight_scale", scales, (rows, groups))
    zeros = None
    if not form.symmetric:
        packed = tensors["weight_zero_point"]  # packed along the rows
        zeros = _signed(unpack_words(packed.t(), form.bits)[:, :rows].t(), form.bits)
        _check_shape(layer, "weight_zero_point", zeros, (rows, groups))
    codes = _signed(unpack_words(tensors["weight_packed"], form.bits)[:, :columns], form.bits)
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
    _check_shape(layer, "weight_scale", scales, (rows, groups))
    zeros = tensors.get("weight_zero_point")
    if form.symmetric or zeros is None or not bool(zeros.any()):
        zeros = None
    return _stored(form, tensors, codes, scales, zeros)


def _decode_gptq(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    _check_bits(form, layer)
    codes = _signed(unpack_words(tensors["qweight"].t(), form.bits), form.bits)  # packed along the columns
    rows, columns = codes.shape
    groups = 1 if form.group_size == -1 else -(-columns // form.group_size)
    scales = tensors["scales"].t().contiguous()
    _check_shape(layer, "scales (transposed)", scales, (rows, groups))
    stored_zeros = unpack_words(tensors["qzeros"], form.bits).t()[:rows]  # packed along the rows
    _check_shape(layer, "qzeros (unpacked)", stored_zeros, (rows, groups))
    if form.packing == "gptq":
        if bool((stored_zeros == (1 << form.bits) - 1).any()):
            raise ModelError(f"{layer}: GPTQ v1 with a zero point of 0, which readers disagree on; use gptq_v2")
        stored_zeros = stored_zeros + 1  # v1 stores one less than it means
    zeros = _signed(stored_zeros, form.bits).contiguous()
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


def _decode_awq(form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
    if form.bits != 4:
        raise ModelError(f"{layer}: AWQ stores 4 bits, not {form.bits}")
    order = torch.argsort(torch.tensor(_AWQ_ORDER, device=tensors["qweight"].device))

    def along_rows(words: Tensor) -> Tensor:  # [n, rows / 8] -> int8 [rows, n]
        nibbles = unpack_words(words, 4).reshape(len(words), -1, 8)
        return _signed(nibbles[:, :, order].flatten(1).t(), 4).contiguous()

    codes, zeros = along_rows(tensors["qweight"]), along_rows(tensors["qzeros"])
    scales = tensors["scales"].t().contiguous()
    groups = 1 if form.group_size == -1 else codes.shape[1] // form.group_size
    _check_shape(layer, "scales (transposed)", scales, (codes.shape[0], groups))
    _check_shape(layer, "qzeros (unpacked)", zeros, (codes.shape[0], groups))
    return StoredWeight(codes, scales, zeros if bool(zeros.any()) else None, form.bits, form.group_size)


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


def _signed(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes 0..2^bits - 1 as int8, shifted down by half the range."""
    return (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)


def _check_bits(form: StoredFormat, layer: str) -> None:
    if form.bits not in (4, 8):
        raise ModelError(f"{layer}: stored in {form.bits} bits; qtool reads 4 and 8")


def _check_shape(layer: str, what: str, tensor: Tensor, expected: tuple[int, int]) -> None:
    if tuple(tensor.shape) != expected:
        raise ModelError(f"{layer}.{what}: shape {tuple(tensor.shape)} where {expected} is expected")
