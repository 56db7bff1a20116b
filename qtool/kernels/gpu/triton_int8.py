"""Weight-only 8 bits on a CUDA device: one Triton kernel that widens codes in registers while it multiplies."""

import functools
import importlib.util
import subprocess

import torch
from torch import Tensor

from qtool.kernels.contract import QuantizedWeight
from qtool.kernels.tiles import TileKernel, multiply_by_tiles

_MOST_ROWS = 64
_BLOCK_COLUMNS = 64
_TILE_ROWS = 4096  # a GPU wants few large products; at most this many rows are widened at a time


class TritonInt8Kernel:
    """To 64 rows the weight is read once, as bytes; above, tiles of bfloat16 numbers feed the tensor cores."""

    def __init__(self, weight: QuantizedWeight) -> None:
        self._rows, self._columns = weight.codes.shape
        self._codes = weight.codes.contiguous()
        self._scales = weight.scales.float().contiguous()
        self.label = f"int8 Triton product, to {_MOST_ROWS} rows; tiles above"

    @property
    def bytes(self) -> int:
        """Memory of codes and scales."""
        return self._codes.numel() + self._scales.numel() * 4

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        if inputs.shape[0] > _MOST_ROWS:
            return multiply_by_tiles(
                inputs, self._rows, lambda first, last: self._tile(first, last, inputs.dtype), align=_TILE_ROWS
            )
        return _launch(inputs.contiguous(), self._codes, self._scales)

    def _tile(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        grouped = self._codes[first:last].view(last - first, self._scales.shape[1], -1).to(dtype)
        return (grouped * self._scales[first:last, :, None].to(dtype)).view(last - first, self._columns)


def fits(weight: QuantizedWeight) -> bool:
    """Whole blocks of columns inside each group."""
    columns, groups = weight.codes.shape[1], weight.scales.shape[1]
    return columns % groups == 0 and columns // groups % _BLOCK_COLUMNS == 0


@functools.cache
def works() -> bool:
    """Whether Triton is here, compiles the kernel and gives right numbers."""
    if importlib.util.find_spec("triton") is None:
        return False
    from triton.errors import TritonError

    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-128, 128, (96, 256), generator=generator, dtype=torch.int8).cuda()
    weight = QuantizedWeight(codes, torch.rand(96, 2, generator=generator).cuda() * 0.01, None, 8, 128)
    inputs = torch.randn(5, 256, generator=generator).cuda().bfloat16()
    try:
        product = TritonInt8Kernel(weight).multiply(inputs).float()
    except (TritonError, RuntimeError, AttributeError, TypeError, ValueError, OSError, subprocess.SubprocessError):
        return False  # it needs a C compiler and a device it knows, and says so in any of these ways
    expected = TileKernel(weight, "none").multiply(inputs).float()
    return bool((product - expected).norm() <= 0.01 * expected.norm())


def _launch(inputs: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    import triton

    from qtool.kernels.gpu.triton_source import int8_product

    tokens, columns = inputs.shape
    rows, groups = scales.shape
    output = torch.empty(tokens, rows, dtype=inputs.dtype, device=inputs.device)
    block_rows = 16 if rows < 16384 else 32
    int8_product[(triton.cdiv(rows, block_rows),)](
        inputs,
        codes,
        scales,
        output,
        tokens,
        rows,
        columns,
        columns // groups,
        groups,
        BLOCK_TOKENS=max(triton.next_power_of_2(tokens), 16),
        BLOCK_ROWS=block_rows,
        BLOCK_COLUMNS=_BLOCK_COLUMNS,
        num_warps=4,
        num_stages=4,
    )
    return output
