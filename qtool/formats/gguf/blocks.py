"""Codes and scales as GGUF blocks of 32 columns, bit for bit, and what numbers a reader makes of the blocks."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qtool.errors import QuantizationError
from qtool.formats.stored_weights import StoredWeight

BLOCK = 32  # columns that share a scale in Q4_0, Q4_1 and Q8_0


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A matrix as GGUF stores it: `data` uint8 [rows, bytes a row] of the block type `kind`."""

    kind: str
    data: NDArray[np.uint8]


def packed(weight: StoredWeight, layer: str) -> Packed:
    """`weight` in the block type that holds its codes as they are.

    Symmetric 4 bits become Q4_0, asymmetric Q4_1, symmetric 8 bits Q8_0; a wider group's scale is repeated. Raises
    QuantizationError, naming `layer`, where a number would not stay what it is.
    """
    rows, columns = weight.codes.shape
    if columns % BLOCK:
        raise QuantizationError(f"{layer}: {columns} columns are not whole blocks of {BLOCK}, which GGUF needs")
    scales, zeros = _by_block(weight, layer)
    half = scales.to(torch.float16)
    if not torch.equal(half.double(), scales.double()):
        raise QuantizationError(
            f"{layer}: scales in {str(scales.dtype).removeprefix('torch.')} do not fit GGUF's float16 exactly; "
            "quantize again with --format gguf, which stores them so"
        )
    if weight.bits == 8 and zeros is None:
        codes = weight.codes.reshape(rows, -1, BLOCK).numpy().view(np.uint8)
        return _joined("Q8_0", [_bytes_of(half), codes])
    if weight.bits != 4:
        raise QuantizationError(f"{layer}: asymmetric {weight.bits} bits have no block type in GGUF")
    nibbles = _nibbles(weight.codes)
    if zeros is None:
        return _joined("Q4_0", [_bytes_of(half), nibbles])
    least = -half.float() * (zeros.float() + 8)
    stored = least.to(torch.float16)
    if not torch.equal(stored.float(), least):
        raise QuantizationError(
            f"{layer}: scale times zero point does not fit float16 exactly, so Q4_1 would change weights; "
            "quantize again with --format gguf, whose scales leave room for it"
        )
    return _joined("Q4_1", [_bytes_of(half), _bytes_of(stored), nibbles])


def plain(values: Tensor, kind: str) -> Packed:
    """`values` [rows, columns] as plain numbers (F32, F16, BF16), or rounded once to Q8_0."""
    import gguf

    if kind == "Q8_0":
        data = gguf.quantize(values.float().numpy(), gguf.GGMLQuantizationType.Q8_0)
        return Packed(kind, cast(NDArray[np.uint8], data))
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    numbers = values.to(dtype).contiguous()
    return Packed(kind, numbers.view(torch.uint8).numpy())


def numbers(block: Packed) -> Tensor:
    """The float32 numbers that a reader of GGUF makes of `block`."""
    import gguf

    found: Any = gguf.dequantize(block.data, gguf.GGMLQuantizationType[block.kind])
    return torch.from_numpy(np.array(found, dtype=np.float32))


def exact(weight: StoredWeight) -> Tensor:
    """The numbers `weight` stands for in float32, before any rounding to its scales' type."""
    columns = weight.codes.shape[1]
    groups = weight.scales.shape[1]
    width = columns // groups
    codes = weight.codes.float()
    if weight.zeros is not None:
        codes = codes - weight.zeros.float().repeat_interleave(width, 1)
    return codes * weight.scales.float().repeat_interleave(width, 1)


def _by_block(weight: StoredWeight, layer: str) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points [rows, blocks]."""
    columns = weight.codes.shape[1]
    width = columns // weight.scales.shape[1]
    if weight.group_of_column is not None or width % BLOCK:
        raise QuantizationError(f"{layer}: groups are not whole blocks of {BLOCK} neighbouring columns, as in GGUF")
    times = width // BLOCK
    zeros = None if weight.zeros is None else weight.zeros.repeat_interleave(times, 1)
    return weight.scales.repeat_interleave(times, 1), zeros


def _nibbles(codes: Tensor) -> NDArray[np.uint8]:
    """uint8 [rows, blocks, 16]: column j of a block in the low half of byte j, column j + 16 in the high half."""
    shifted = (codes + 8).to(torch.uint8).reshape(codes.shape[0], -1, 2, BLOCK // 2)
    return cast(NDArray[np.uint8], (shifted[:, :, 0] | (shifted[:, :, 1] << 4)).numpy())


def _bytes_of(half: Tensor) -> NDArray[np.uint8]:
    return cast(NDArray[np.uint8], half.contiguous().unsqueeze(-1).view(torch.uint8).numpy())


def _joined(kind: str, parts: list[NDArray[np.uint8]]) -> Packed:
    blocks = np.concatenate(parts, axis=-1)
    return Packed(kind, np.ascontiguousarray(blocks.reshape(blocks.shape[0], -1)))
