"""4-bit weights on a CPU: torch's packed int4 product at few rows, tiles unpacked from the same bytes at many."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.kernels.contract import QuantizedWeight
from qtool.machine.device import has_bfloat16

GROUPS = (256, 128, 64, 32)  # the group sizes torch's operator takes
_ALIGN_ROWS = 64
_TILE_SCALARS = 1 << 18  # 1 MiB in float32: stays in the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How this processor's packing orders rows inside a block: byte j holds row order[j] low, order[half + j] high."""

    block: int
    order: Tensor


def pack(codes: Tensor) -> Tensor:
    """int8 codes -8..7 [rows, columns] in the operator's own order: uint8 [rows, columns / 2]."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu((codes.to(torch.int32) + 8).contiguous(), 1)
    return packed


def packed_product(inputs: Tensor, packed: Tensor, group: int, scales_and_zeros: Tensor) -> Tensor:
    """bfloat16 [tokens, columns] times packed weights; scales_and_zeros is bfloat16 [groups, rows, 2]."""
    product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(inputs, packed, group, scales_and_zeros)
    return product


@functools.lru_cache(maxsize=1)
def layout() -> Layout | None:
    """The packing order here, learnt by packing known numbers; None when it fits no block pattern.

    The bytes differ by instruction set and torch promises nothing about them, so they are asked, never assumed.
    """
    for block in (64, 32, 16):
        rows = torch.arange(2 * block)[:, None].expand(-1, 32)
        low, high = (pack((part - 8).to(torch.int8)).view(2, 32, block // 2) for part in (rows % 16, rows // 16))
        first = torch.cat([low[0, 0] & 15, low[0, 0] >> 4]).long() + 16 * torch.cat([high[0, 0] & 15, high[0, 0] >> 4])
        if sorted(first.tolist()) != list(range(block)):
            continue
        found = Layout(block, first)
        sample = torch.randint(-8, 8, (3 * block, 96), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
        if torch.equal(_unpacked(pack(sample), found, 96), _reorder(sample.t(), found)):
            return found
    return None


class Int4Kernel:
    """Weight-only 4 bits. Odd shapes are padded; one scale a row is applied to the product instead of the weight."""

    def __init__(self, weight: QuantizedWeight, *, few_rows: int) -> None:
        self._rows, self._columns = weight.codes.shape
        self._few_rows = few_rows
        self._per_row = weight.scales.shape[1] == 1
        self._group = group_for(self._columns, weight.group_size if not self._per_row else -1)
        padded_rows = -(-self._rows // _ALIGN_ROWS) * _ALIGN_ROWS
        padded_columns = -(-self._columns // self._group) * self._group
        codes = torch.nn.functional.pad(weight.codes, (0, padded_columns - self._columns, 0, padded_rows - self._rows))
        self._packed = pack(codes)
        self._row_scales = weight.scales[:, 0].float() if self._per_row else None
        self._scales = self._scales_and_zeros(weight, padded_rows, padded_columns)
        self._layout = layout()
        self.label = f"int4 packed product, to {few_rows} rows; tiles above"

    def _scales_and_zeros(self, weight: QuantizedWeight, rows: int, columns: int) -> Tensor:
        groups = columns // self._group
        scales = torch.ones(rows, groups) if self._per_row else torch.zeros(rows, groups)
        zeros = torch.zeros(rows, groups)
        if not self._per_row:
            scales[: self._rows] = weight.scales.float()
        if weight.zeros is not None:
            zeros[: self._rows] = -weight.zeros.float() * scales[: self._rows]
        return torch.stack([scales.t(), zeros.t()], dim=-1).bfloat16().contiguous()

    @property
    def bytes(self) -> int:
        """Memory of packed weights and scales."""
        row_scales = 0 if self._row_scales is None else self._row_scales.numel() * 4
        return self._packed.numel() + self._scales.numel() * 2 + row_scales

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        padded = self._scales.shape[0] * self._group - self._columns
        wide = torch.nn.functional.pad(inputs, (0, padded)) if padded else inputs
        if wide.shape[0] <= self._few_rows or self._layout is None:
            result = packed_product(wide.bfloat16(), self._packed, self._group, self._scales)
        else:
            result = self._by_tiles(wide, self._layout)
        result = result[:, : self._rows]
        if self._row_scales is not None:
            result = result.float() * self._row_scales
        return result.to(inputs.dtype)

    def _by_tiles(self, inputs: Tensor, order: Layout) -> Tensor:
        """The product in float32 (bfloat16 where the processor has it), a cache-sized tile of columns at a time.

        Codes are multiplied as 0..15; what that adds, the sum of the inputs of a group times its offset, is a product
        with one row a group and comes out at the end.
        """
        fast_bfloat16 = inputs.dtype is torch.bfloat16 and has_bfloat16()
        wide = inputs.to(torch.bfloat16 if fast_bfloat16 else torch.float32)
        groups, rows, _ = self._scales.shape
        scales = _reorder(self._scales[:, :, 0], order).float()
        product = wide.new_empty(wide.shape[0], rows)
        step = max(_TILE_SCALARS // wide.shape[1] // order.block, 1) * order.block
        for first in range(0, rows, step):
            last = min(first + step, rows)
            tile = self._tile(first, last, order, wide.dtype)
            if not self._per_row:
                tile.view(groups, self._group, -1).mul_(scales[:, first:last].to(wide.dtype)[:, None])
            torch.matmul(wide, tile, out=product[:, first:last])
        sums = wide.float().view(-1, groups, self._group).sum(-1)
        offsets = _reorder(self._scales[:, :, 1], order).float() - 8.0 * scales
        product = product.float().addmm_(sums, offsets)
        back = torch.argsort(order.order)
        return product.view(-1, rows // order.block, order.block)[:, :, back].reshape(-1, rows)

    def _tile(self, first: int, last: int, order: Layout, dtype: torch.dtype) -> Tensor:
        """Codes 0..15 of rows first..last in packing order, as numbers [columns, last - first]."""
        columns, half = self._packed.shape[1] * 2, order.block // 2
        blocks = self._packed[first:last].view(-1, columns, half).transpose(0, 1)
        tile = torch.empty(columns, (last - first) // order.block, order.block, dtype=dtype)
        tile[:, :, :half] = blocks & 15
        tile[:, :, half:] = blocks >> 4
        return tile.view(columns, last - first)


def group_for(columns: int, group_size: int) -> int:
    """The operator's group to use: the weight's own, or for one scale a row the largest that fits best."""
    if group_size != -1:
        return group_size
    return next((group for group in GROUPS if columns % group == 0), GROUPS[-1])


def fits(weight: QuantizedWeight) -> bool:
    """Whether the operator can express this weight: 4 bits, consecutive groups of a size it takes."""
    if weight.bits != 4 or weight.group_of_column is not None:
        return False
    columns = weight.codes.shape[1]
    per_row = weight.scales.shape[1] == 1
    return per_row or (weight.group_size in GROUPS and columns % weight.group_size == 0)


def _unpacked(packed: Tensor, order: Layout, columns: int) -> Tensor:
    """int8 codes [columns, rows] of packed bytes, rows in packing order."""
    blocks = packed.view(-1, columns, order.block // 2)
    halves = torch.cat((blocks & 15, blocks >> 4), dim=2).view(torch.int8) - 8
    return halves.transpose(0, 1).reshape(columns, -1)


def _reorder(columns: Tensor, order: Layout) -> Tensor:
    """[n, rows] from natural to packing order."""
    return columns.reshape(columns.shape[0], -1, order.block)[:, :, order.order].reshape(columns.shape)
