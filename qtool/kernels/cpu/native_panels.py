"""Integer weights as panels of sixteen rows, the form that `native_avx512.cpp` multiplies."""

import torch
from torch import Tensor

ROWS = 16


def panels(codes: Tensor, bits: int) -> Tensor:
    """int8 codes [rows, columns] as bytes: of each sixteen rows four columns at a time (eight of 4-bit codes, the first
    four in the low halves), row after row, raised to be unsigned. Rows are filled up with codes of 0."""
    raised = (
        (_whole(codes) + (1 << (bits - 1))).view(torch.uint8) if bits == 4 else _whole(codes).view(torch.uint8) ^ 128
    )
    if bits == 4:
        parts = raised.view(len(raised), -1, 2, 4)
        raised = parts[:, :, 0] | parts[:, :, 1] << 4
    quads = raised.contiguous().view(torch.int32).view(-1, ROWS, raised[0].numel() // 4)
    return quads.transpose(1, 2).contiguous().view(torch.uint8).view(-1)


def panel_numbers(numbers: Tensor) -> Tensor:
    """[rows] or [rows, groups] in the order of panels: by sixteen rows, group after group, filled up with 0."""
    if numbers.ndim == 1:
        return _whole(numbers).contiguous()
    return _whole(numbers).view(-1, ROWS, numbers.shape[1]).transpose(1, 2).contiguous()


def _whole(rows: Tensor) -> Tensor:
    missing = -len(rows) % ROWS
    return torch.cat((rows, rows.new_zeros(missing, *rows.shape[1:]))) if missing else rows
