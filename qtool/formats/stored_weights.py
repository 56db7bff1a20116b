"""Quantized weights as codes and scales, whatever the format they lie in, and codes and scales turned into numbers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qtool.errors import ModelError


@dataclass(frozen=True, slots=True)
class StoredFormat:
    """How one layer lies in a checkpoint. `packing` is the name that a format gives it, `group_size` is -1 for one
    scale a row.

    `activations` is what the layer's input is quantized to 8 bits by: nothing, a scale per token found while running,
    or one stored scale for the tensor.
    """

    packing: str
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


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """Codes of int32 `words` along the last dimension, least significant first: [n, w] -> uint8 [n, w * 32 / bits]."""
    as_bytes = words.contiguous().view(torch.uint8)
    if bits == 8:
        return as_bytes
    return torch.stack((as_bytes & 0xF, as_bytes >> 4), dim=-1).flatten(-2)


def signed(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes 0..2^bits - 1 as int8, shifted down by half the range."""
    return (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)


def check_bits(form: StoredFormat, layer: str) -> None:
    """Raises ModelError for a width that has no codes here."""
    if form.bits not in (4, 8):
        raise ModelError(f"{layer}: stored in {form.bits} bits; qtool reads 4 and 8")


def check_shape(layer: str, what: str, tensor: Tensor, expected: tuple[int, int]) -> None:
    """Raises ModelError where a stored tensor is not of the shape that its layer asks for."""
    if tuple(tensor.shape) != expected:
        raise ModelError(f"{layer}.{what}: shape {tuple(tensor.shape)} where {expected} is expected")
