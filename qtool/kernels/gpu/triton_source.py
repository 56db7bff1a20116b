"""The Triton program of `triton_int8`: imported only where Triton is and a CUDA device asked for it."""

from typing import Any

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def int8_product(
    inputs: Any,
    codes: Any,
    scales: Any,
    output: Any,
    tokens: Any,
    rows: Any,
    columns: Any,
    group_size: Any,
    groups: Any,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
) -> None:
    """output [tokens, rows] = inputs [tokens, columns] times (codes [rows, columns] * scales [rows, groups])^T."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    token = tl.arange(0, BLOCK_TOKENS)
    step = tl.arange(0, BLOCK_COLUMNS)
    in_rows = row < rows
    first_code = row.to(tl.int64) * columns  # rows times columns may pass 2^31
    in_tokens = token < tokens
    total = tl.zeros((BLOCK_TOKENS, BLOCK_ROWS), dtype=tl.float32)
    for start in range(0, columns, BLOCK_COLUMNS):
        column = start + step
        given = tl.load(inputs + token[:, None] * columns + column[None, :], mask=in_tokens[:, None], other=0.0)
        weight = tl.load(codes + first_code[None, :] + column[:, None], mask=in_rows[None, :], other=0)
        scale = tl.load(scales + row * groups + start // group_size, mask=in_rows, other=0.0)
        total += tl.dot(given, weight.to(given.dtype), input_precision="ieee") * scale[None, :]
    where = output + token[:, None] * rows + row[None, :]
    tl.store(where, total.to(output.dtype.element_ty), mask=in_tokens[:, None] & in_rows[None, :])
