"""Weights in the form the compiled products want: few instructions a weight, and the same bits for any batch."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qtool.kernels.contract import Activations, Kernel, QuantizedWeight
from qtool.kernels.cpu.native_build import native
from qtool.kernels.cpu.native_panels import panel_numbers, panels
from qtool.kernels.cpu.native_structures import Product
from qtool.kernels.tiles import InputQuantizer

_STEPS = (128, 64, 32)  # columns that share one scale of 16-bit inputs
_PER_ROW_STEP = 128
ALIGN = 32
_FLOATS = 16  # columns the float32 product takes at a time
_INT4, _INT8, _BOOK, _INT8_INPUTS, _BFLOAT16, _FLOAT32 = 4, 8, 44, 88, 16, 32
_PANELS = 100  # added to a kind: its weight lies in panels
_BOOK_STEP = 64
_BOOK_ONE = 8191  # times 32767, times the eight products that a lane of 64 columns adds up, is just below 2^31
_MOST_COLUMNS = 1 << 16  # above, exact 32-bit sums of 8-bit products could overflow


class NativeKernel:
    """One weight and the compiled product with it; made by the functions below."""

    def __init__(self, product: Product, kind: int, step: int, label: str, tensors: tuple[Tensor | None, ...]) -> None:
        self._library: Any = native().library
        assert self._library is not None, "callers ask `refusal` first"
        self._tensors = tensors  # what `product` points to
        self.product = product
        product.codes, product.scales, product.zeros = (
            None if tensor is None else tensor.data_ptr() for tensor in tensors
        )
        self.kind, self.step = kind, step
        self.held: object = None  # what else `product` points to
        self.many_rows: Callable[[NativeKernel, Tensor], Tensor] | None = None  # torch's way, where it was faster
        self.many_rows_from = 0
        self.label = label
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)

    def row_scales(self) -> Tensor:
        """float32 [rows] of a weight with one scale a row."""
        scales = self._tensors[1]
        assert scales is not None
        return scales[: self.product.rows]

    def row_sums(self) -> Tensor:
        """int32 [rows]: the sum of each row's codes, of a weight in panels for 8-bit inputs."""
        sums = self._tensors[2]
        assert sums is not None
        return sums[: self.product.rows]

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        if self.many_rows is not None and inputs.shape[0] >= self.many_rows_from:
            return self.many_rows(self, inputs)
        return self.by_compiled(inputs)

    def by_compiled(self, inputs: Tensor) -> Tensor:
        """The same, by the compiled product for any number of rows."""
        given = inputs.float().contiguous()
        tokens = given.shape[0]
        output = torch.empty(tokens, self.product.rows)
        scratch = torch.empty(self._library.qtool_scratch(tokens, self.product.padded, self.step), dtype=torch.uint8)
        call = Product.from_buffer_copy(self.product)
        call.inputs, call.tokens, call.threads = given.data_ptr(), tokens, torch.get_num_threads()
        call.output, call.stride, call.scratch = output.data_ptr(), self.product.rows, scratch.data_ptr()
        if self._library.qtool_product(ctypes.byref(call), self.kind, self.step):
            raise RuntimeError(f"{self.label}: no compiled product of kind {self.kind} and step {self.step}")
        return output.to(inputs.dtype)


def weight_fits(weight: QuantizedWeight) -> bool:
    """Whether 16-bit inputs can be multiplied with this weight: 4 or 8 bits, consecutive groups of 32 n columns."""
    if weight.codes.dtype is not torch.int8 or weight.bits not in (4, 8) or weight.group_of_column is not None:
        return False
    if weight.zeros is not None and weight.zeros.is_floating_point():
        return False
    columns, groups = weight.codes.shape[1], weight.scales.shape[1]
    return groups == 1 or (columns == groups * weight.group_size and weight.group_size % _STEPS[-1] == 0)


def input_fits(weight: QuantizedWeight) -> bool:
    """Whether 8-bit inputs can be multiplied with this weight: symmetric int8 with one scale a row."""
    plain = weight.codes.dtype is torch.int8 and weight.bits == 8 and weight.zeros is None
    return plain and weight.scales.shape[1] == 1 and weight.codes.shape[1] <= _MOST_COLUMNS


def weight_kernel(weight: QuantizedWeight) -> NativeKernel:
    """4- or 8-bit weights, 16-bit inputs; zero points or none."""
    rows, columns = weight.codes.shape
    per_row = weight.scales.shape[1] == 1
    step = _PER_ROW_STEP if per_row else next(step for step in _STEPS if weight.group_size % step == 0)
    padded = -(-columns // step) * step
    codes = torch.nn.functional.pad(weight.codes, (0, padded - columns)) if padded > columns else weight.codes
    repeat = 1 if per_row else weight.group_size // step
    scales = weight.scales.float().repeat_interleave(repeat, dim=1)
    zeros = None if weight.zeros is None else weight.zeros.to(torch.int32).repeat_interleave(repeat, dim=1)
    product = Product(rows=rows, columns=columns, padded=padded, per_row=per_row)
    label = f"int{weight.bits} compiled product, 16-bit inputs"
    if _in_panels():
        above = None if zeros is None else panel_numbers(zeros + (1 << (weight.bits - 1)))
        tensors = panels(codes, weight.bits), panel_numbers(scales), above
        return NativeKernel(product, _PANELS + weight.bits, step, label, tensors)
    if weight.bits == 4:
        codes = _pack_nibbles(codes, 32 if step == 32 else 64)
    tensors = codes.contiguous(), scales.contiguous(), None if zeros is None else zeros.contiguous()
    return NativeKernel(product, weight.bits, step, label, tensors)


def input_kernel(weight: QuantizedWeight, activations: Activations) -> NativeKernel:
    """8-bit weights and 8-bit inputs, summed exactly."""
    rows, columns = weight.codes.shape
    padded = -(-columns // ALIGN) * ALIGN
    codes = torch.nn.functional.pad(weight.codes, (0, padded - columns)) if padded > columns else weight.codes
    inputs = InputQuantizer(weight, activations)
    product = Product(rows=rows, columns=columns, padded=padded, per_row=True)
    product.input_scale = inputs.static_scale or 0.0
    product.input_zero = inputs.zero
    label = f"int8 compiled product, {activations} 8-bit inputs"
    scales = weight.scales[:, 0].float()
    if _in_panels():
        sums = panel_numbers(codes.sum(dim=1, dtype=torch.int32))
        return NativeKernel(
            product, _PANELS + _INT8_INPUTS, ALIGN, label, (panels(codes, 8), panel_numbers(scales), sums)
        )
    return NativeKernel(product, _INT8_INPUTS, ALIGN, label, (codes.contiguous(), scales.contiguous(), None))


def book_fits(columns: int, block: int) -> bool:
    """Whether 4-bit places in a book, a scale for each `block` of columns, can be multiplied."""
    return block % _BOOK_STEP == 0 and columns % block == 0


def book_kernel(places: Tensor, scales: Tensor, book: Tensor, name: str) -> NativeKernel:
    """Weights that are 4-bit places [rows, columns] in a book [16] of numbers in -1..1, times a scale [rows, blocks].

    The book is rounded to multiples of 1/8191, so that the exact sums of its products with 16-bit inputs fit 32 bits:
    an error of 2^-14 of the scale at most, less than the bfloat16 that bitsandbytes would compute with makes of it.
    """
    rows, columns = places.shape
    parts = places.to(torch.int32).view(rows, columns // _BOOK_STEP, 4, 16)
    lanes = parts[:, :, 0] | parts[:, :, 1] << 8 | parts[:, :, 2] << 4 | parts[:, :, 3] << 12
    rounded = (book.double() * _BOOK_ONE).round().to(torch.int16).contiguous()
    wide = (scales.double() / _BOOK_ONE).float().repeat_interleave(columns // scales.shape[1] // _BOOK_STEP, dim=1)
    product = Product(rows=rows, columns=columns, padded=columns, per_row=False, book=rounded.data_ptr())
    label = f"{name} compiled product, 16-bit inputs"
    kernel = NativeKernel(product, _BOOK, _BOOK_STEP, label, (_as_bytes(lanes).contiguous(), wide.contiguous(), None))
    kernel.held = rounded
    return kernel


def bfloat16_kernel(weight: Tensor) -> NativeKernel:
    """A weight [rows, columns] whose numbers are all bfloat16, inputs and sums in float32."""
    rows, columns = weight.shape
    padded = -(-columns // ALIGN) * ALIGN
    codes = weight.bfloat16().contiguous()
    if padded > columns:  # else nothing is copied: an embedding may share the numbers
        codes = torch.nn.functional.pad(codes, (0, padded - columns))
    product = Product(rows=rows, columns=columns, padded=padded, per_row=True)
    return NativeKernel(product, _BFLOAT16, ALIGN, "bfloat16 compiled product, float32 inputs", (codes, None, None))


def float32_kernel(weight: Tensor) -> NativeKernel | None:
    """A float32 weight [rows, columns] where it lies, nothing copied; None where its rows are not whole vectors."""
    rows, columns = weight.shape
    if weight.dtype is not torch.float32 or columns % _FLOATS or not weight.is_contiguous():
        return None
    product = Product(rows=rows, columns=columns, padded=columns, per_row=True)
    return NativeKernel(product, _FLOAT32, _FLOATS, "float32 compiled product", (weight, None, None))


@functools.lru_cache(maxsize=1)
def refusal() -> str:
    """Empty when the compiled products are here and give right numbers, else why they are not used."""
    if native().library is None:
        return native().reason
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(5, 160, generator=generator)
    plain = torch.randn(40, 160, generator=generator).bfloat16().float()
    kernels: list[tuple[Kernel | None, Tensor]] = [(bfloat16_kernel(plain), plain), (float32_kernel(plain), plain)]
    for bits in (4, 8):
        half = 1 << (bits - 1)
        codes = torch.randint(-half, half, (40, 160), generator=generator, dtype=torch.int8)
        scales = torch.rand(40, 5, generator=generator)
        exact = (codes.view(40, 5, 32) * scales[:, :, None]).view(40, 160)
        kernels.append((weight_kernel(QuantizedWeight(codes, scales, None, bits, 32)), exact))
    ones = QuantizedWeight(torch.full((40, 160), -128, dtype=torch.int8), torch.ones(40, 1), None, 8, -1)
    codes, scale = InputQuantizer(ones, "dynamic").codes(inputs)
    right = torch.equal(input_kernel(ones, "dynamic").multiply(inputs), (codes @ ones.codes.float().t()) * scale)
    for kernel, exact in kernels:
        assert kernel is not None
        error = (kernel.multiply(inputs).double() - inputs.double() @ exact.double().t()).abs()
        right &= bool((error <= 2.0**-13 * (inputs.double().abs() @ exact.double().abs().t())).all())
    return "" if right else "their products are not right here"


def in_panels(kernel: NativeKernel) -> bool:
    """Whether `native_many` can widen the weight."""
    return kernel.kind > _PANELS


def _in_panels() -> bool:
    level = native().level
    return level is not None and "native_avx512.cpp" in level.own


def _pack_nibbles(codes: Tensor, block: int) -> Tensor:
    """int8 codes -8..7 [rows, columns] as bytes [rows, columns / 2] in the order that one vector load unpacks.

    A block of 64 columns is sixteen 16-bit lanes, lane j with columns j, 16 + j, 32 + j, 48 + j from its lowest four
    bits on; a block of 32 is sixteen bytes with columns j and 16 + j.
    """
    rows, columns = codes.shape
    parts = (codes.to(torch.int32) & 15).view(rows, columns // block, block // 16, 16)
    lanes = sum(parts[:, :, part] << (4 * part) for part in range(block // 16))
    assert isinstance(lanes, Tensor)
    if block == 32:
        return lanes.to(torch.uint8).view(rows, -1)
    return _as_bytes(lanes)


def _as_bytes(lanes: Tensor) -> Tensor:
    """16-bit numbers [rows, ...] as bytes [rows, 2 n], the low one first."""
    low, high = (lanes & 255).to(torch.uint8), (lanes >> 8).to(torch.uint8)
    return torch.stack((low, high), dim=-1).view(len(lanes), -1)
