"""8-bit weights on a CPU: torch's int8 product for 16-bit inputs, oneDNN's u8 x s8 product for 8-bit inputs."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from qtool.kernels.contract import Activations, QuantizedWeight
from qtool.kernels.tiles import InputQuantizer, multiply_by_tiles
from qtool.machine.device import has_bfloat16

_MOST_GROUPS = 64
_ALIGN_COLUMNS = 32  # torch's int8 product reads past the end of a row, and crashes, where columns do not fill a vector
_UNSIGNED = 128  # oneDNN's fast path wants unsigned inputs; its own compensation takes the shift out again


class Int8WeightKernel:
    """Weight-only 8 bits, symmetric. One product a group; scales are applied to the products, in float32."""

    def __init__(self, weight: QuantizedWeight, *, few_rows: int) -> None:
        self._rows, self._columns = weight.codes.shape
        self._few_rows = few_rows
        groups = weight.scales.shape[1]
        self._padding = -self._columns % _ALIGN_COLUMNS if groups == 1 else 0
        codes = torch.nn.functional.pad(weight.codes, (0, self._padding)) if self._padding else weight.codes
        self._codes = codes.reshape(self._rows, groups, -1).transpose(0, 1).contiguous()  # [groups, rows, size]
        self._scales = weight.scales.float().t().contiguous()  # [groups, rows]
        self._ones = torch.ones(self._rows, dtype=torch.bfloat16)
        self.label = f"int8 weight product, to {few_rows} rows; tiles above"

    @property
    def bytes(self) -> int:
        """Memory of codes and scales."""
        return self._codes.numel() + self._scales.numel() * 4 + self._rows * 2

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        if self._padding:
            inputs = torch.nn.functional.pad(inputs, (0, self._padding))
        if inputs.shape[0] > self._few_rows:
            return self._by_tiles(inputs)
        narrow = inputs.bfloat16()
        size = self._codes.shape[2]
        result: Tensor | None = None
        for group, codes in enumerate(self._codes):
            part = narrow if len(self._codes) == 1 else narrow[:, group * size : (group + 1) * size].contiguous()
            product = torch.ops.aten._weight_int8pack_mm(part, codes, self._ones).float() * self._scales[group]
            result = product if result is None else result.add_(product)
        assert result is not None
        return result.to(inputs.dtype)

    def _by_tiles(self, inputs: Tensor) -> Tensor:
        fast_bfloat16 = inputs.dtype is torch.bfloat16 and has_bfloat16()
        dtype = torch.bfloat16 if fast_bfloat16 else torch.float32
        scaled_after = len(self._codes) == 1

        def tile(first: int, last: int) -> Tensor:
            if scaled_after:
                return self._codes[0, first:last].to(dtype)
            values = self._codes[:, first:last].transpose(0, 1).to(dtype)
            return (values * self._scales[:, first:last].t().to(dtype)[:, :, None]).reshape(last - first, -1)

        product = multiply_by_tiles(inputs.to(dtype), self._rows, tile)
        return (product.float() * self._scales[0] if scaled_after else product).to(inputs.dtype)


def weight_fits(weight: QuantizedWeight) -> bool:
    """Whether `Int8WeightKernel` can express this weight."""
    columns, groups = weight.codes.shape[1], weight.scales.shape[1]
    plain = weight.codes.dtype is torch.int8 and weight.bits == 8 and weight.zeros is None
    whole = groups == 1 or (columns % groups == 0 and columns // groups % _ALIGN_COLUMNS == 0)
    return plain and whole and weight.group_of_column is None and groups <= _MOST_GROUPS


class Int8Kernel:
    """8-bit weights, one scale a row, and 8-bit inputs: one oneDNN product, scales applied in float32."""

    def __init__(self, weight: QuantizedWeight, activations: Activations) -> None:
        self._rows, self._columns = weight.codes.shape
        self._inputs = InputQuantizer(weight, activations)
        self._packed = torch.ops.onednn.qlinear_prepack(weight.codes.contiguous(), None)
        self._scales = weight.scales[:, 0].float().contiguous()
        self._zeros = torch.zeros(self._rows, dtype=torch.int64)
        self._halves = onednn_products().inexact
        self.label = f"oneDNN u8 x s8 product{' in halves' if self._halves else ''}, {activations} 8-bit inputs"

    @property
    def bytes(self) -> int:
        """Memory of codes, their compensation and scales."""
        return self._rows * self._columns + self._rows * 16

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        codes, scale = self._inputs.codes(inputs)
        unsigned = codes.add_(_UNSIGNED).to(torch.uint8)
        zero = _UNSIGNED + self._inputs.zero
        if self._halves:
            result = _product_in_halves(unsigned, zero, self._packed, self._scales, self._zeros)
        else:
            result = _product(unsigned, zero, self._packed, self._scales, self._zeros)
        return (result * scale).to(inputs.dtype)


class SmallInt8Kernel:
    """The same product for weights so small that oneDNN's own overhead is most of the time: codes as float32 numbers.

    Products of codes and their sums to 2^24 are exact in float32.
    """

    def __init__(self, weight: QuantizedWeight, activations: Activations) -> None:
        self._inputs = InputQuantizer(weight, activations)
        self._codes = weight.codes.contiguous()
        self._scales = weight.scales[:, 0].float().contiguous()
        self.label = f"int8 codes multiplied in float32, {activations} 8-bit inputs"

    @property
    def bytes(self) -> int:
        """Memory of codes and scales."""
        return self._codes.numel() + self._scales.numel() * 4

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        codes, scale = self._inputs.codes(inputs)
        if self._inputs.zero:
            codes -= self._inputs.zero
        product = torch.nn.functional.linear(codes, self._codes.float())
        return product.mul_(self._scales).mul_(scale).to(inputs.dtype)


def _product(inputs: Tensor, zero: int, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """float32 [tokens, rows]: (uint8 inputs - zero) times prepacked int8 weights times their row scales."""
    result: Tensor = torch.ops.onednn.qlinear_pointwise(
        inputs, 1.0, zero, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return result


def _product_in_halves(inputs: Tensor, zero: int, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """The same where 16-bit sums of two products saturate (x86 without VNNI): no half is above 128, so none can."""
    low = inputs >> 1
    both = _product(torch.cat((low, inputs - low)), 0, packed, scales, zeros)
    ones = torch.full_like(inputs[:1], 1)
    return both[: len(inputs)] + both[len(inputs) :] - zero * _product(ones, 0, packed, scales, zeros)


class OneDnn(NamedTuple):
    """Whether oneDNN's u8 x s8 operators may be used: `reason` says why not; `inexact` that sums saturate."""

    reason: str
    inexact: bool


@functools.lru_cache(maxsize=1)
def onednn_products() -> OneDnn:
    """What oneDNN's internal operators do here, asked once with numbers that make 16-bit sums overflow."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-128, 128, (48, 80), generator=generator, dtype=torch.int8)
    inputs = torch.randint(0, 256, (5, 80), generator=generator, dtype=torch.uint8)
    codes[0], inputs[0] = 127, 255
    expected = (inputs.long() - _UNSIGNED) @ codes.long().t()
    try:
        arguments = torch.ops.onednn.qlinear_prepack(codes, None), torch.ones(48), torch.zeros(48, dtype=torch.int64)
        if torch.equal(_product(inputs, _UNSIGNED, *arguments).long(), expected):
            return OneDnn("", inexact=False)
        if torch.equal(_product_in_halves(inputs, _UNSIGNED, *arguments).long(), expected):
            return OneDnn("", inexact=True)
    except (RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        return OneDnn(str(error).splitlines()[0], inexact=False)
    return OneDnn("its products are not exact here", inexact=False)


def input_fits(weight: QuantizedWeight) -> bool:
    """Whether `Int8Kernel` can express this weight: symmetric int8 with one scale a row."""
    plain = weight.codes.dtype is torch.int8 and weight.bits == 8 and weight.zeros is None
    return plain and weight.scales.shape[1] == 1
