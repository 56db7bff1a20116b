"""Many rows at once on processors with bfloat16 or AMX instructions: a weight widened by tiles, multiplied by torch.

torch's operators use AMX tiles, which the compiled products do not: there, prompts are faster this way from some number
of rows on. Which way is faster is measured once for each shape, when a weight of it is loaded. 8-bit inputs give the
same bits both ways; 16-bit inputs are rounded to bfloat16 here, so only a bfloat16 model takes this way for them.
"""

import ctypes
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from qtool.kernels.contract import Activations, QuantizedWeight
from qtool.kernels.cpu.native_build import native
from qtool.kernels.cpu.native_cpu import NativeKernel, in_panels
from qtool.kernels.cpu.native_panels import ROWS
from qtool.kernels.tiles import InputQuantizer
from qtool.machine.device import has_bfloat16

MANY = 64  # rows from which widening a tile is worth asking about
_TILE_BYTES = 1 << 20  # stays in the second-level cache
_SMALLEST = 1 << 18  # scalars; below, either way is short
_REPEATS = 3


def faster_way(kernel: NativeKernel, weight: QuantizedWeight, activations: Activations) -> NativeKernel:
    """`kernel`, which leaves many rows to torch where that was faster here."""
    if not has_bfloat16() or not in_panels(kernel) or weight.codes.numel() < _SMALLEST:
        return kernel
    quantizer = None if activations == "none" else InputQuantizer(weight, activations)
    if _torch_is_faster(kernel, quantizer):
        kernel.many_rows = functools.partial(by_torch, quantizer=quantizer)
        kernel.many_rows_from = MANY
    return kernel


def by_torch(kernel: NativeKernel, inputs: Tensor, quantizer: InputQuantizer | None) -> Tensor:
    """[tokens, columns] -> [tokens, rows] in the type of `inputs`, by torch's product with tiles of the weight."""
    if quantizer is None and inputs.dtype is not torch.bfloat16:
        return kernel.by_compiled(inputs)
    product, given = kernel.product, inputs
    scale: Tensor | float = 1.0
    if quantizer is not None:
        codes, scale = quantizer.codes(inputs)
        inputs = codes.to(torch.int8)
    padding = product.padded - product.columns
    wide = torch.nn.functional.pad(inputs, (0, padding)) if padding else inputs
    output = torch.empty(len(inputs), product.rows, dtype=torch.float32 if quantizer else inputs.dtype)
    step = max(_TILE_BYTES // (product.padded * wide.element_size()) // ROWS, 1) * ROWS
    for first in range(0, product.rows, step):
        last = min(first + step, product.rows)
        tile = _tile(kernel, first, last, wide.dtype)
        part = (torch._int_mm(wide, tile) if quantizer else torch.matmul(wide, tile))[:, : last - first]
        if quantizer and quantizer.zero:
            part -= quantizer.zero * kernel.row_sums()[first:last]
        output[:, first:last] = part
    if quantizer is None:
        return output
    return output.mul_(kernel.row_scales()).mul_(scale).to(given.dtype)


def _tile(kernel: NativeKernel, first: int, last: int, dtype: torch.dtype) -> Tensor:
    """Rows first..last of the weight, filled up to whole panels, as the columns of a matrix [padded, rows]."""
    panels = first // ROWS, -(-last // ROWS)
    tile = torch.empty(kernel.product.padded, (panels[1] - panels[0]) * ROWS, dtype=dtype)
    kernel.product.threads = torch.get_num_threads()
    library = native().library
    assert library is not None, "a compiled kernel exists"
    call = ctypes.byref(kernel.product)
    if library.qtool_widen(call, kernel.kind, kernel.step, *panels, tile.data_ptr(), tile.shape[1]):
        raise RuntimeError(f"{kernel.label}: its weight does not lie in panels")
    return tile


_faster: dict[tuple[int, int, int, int, int], bool] = {}


def _torch_is_faster(kernel: NativeKernel, quantizer: InputQuantizer | None) -> bool:
    """Whether `by_torch` takes less time with this weight."""
    return measured_faster(kernel, lambda inputs: by_torch(kernel, inputs, quantizer))


def measured_faster(kernel: NativeKernel, theirs: Callable[[Tensor], Tensor]) -> bool:
    """Whether `theirs` multiplies MANY rows in less time than the compiled product. Measured once for each shape and
    number of threads: the least of a few times each way, in turns."""
    shape = kernel.kind, kernel.step, kernel.product.rows, kernel.product.columns, torch.get_num_threads()
    if shape not in _faster:
        inputs = torch.randn(MANY, kernel.product.columns, dtype=torch.bfloat16)
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(_REPEATS + 1):
            for is_theirs, multiply in ((False, kernel.by_compiled), (True, theirs)):
                started = time.perf_counter()
                multiply(inputs)
                times[is_theirs].append(time.perf_counter() - started)
        _faster[shape] = min(times[True][1:]) < min(times[False][1:])
    return _faster[shape]
