"""The fallback that is always right: weights dequantized a cache-sized tile at a time, then multiplied as numbers."""

from collections.abc import Callable

import torch
from torch import Tensor

from qtool.kernels.contract import Activations, QuantizedWeight

_TILE_SCALARS = 1 << 18  # 1 MiB in float32: stays in the second-level cache


def multiply_by_tiles(inputs: Tensor, rows: int, tile: Callable[[int, int], Tensor], *, align: int = 1) -> Tensor:
    """inputs [tokens, columns] times the weight whose rows first..last `tile(first, last)` returns: [tokens, rows]."""
    step = max(_TILE_SCALARS // inputs.shape[1] // align, 1) * align
    if step >= rows:
        return torch.nn.functional.linear(inputs, tile(0, rows))
    result = inputs.new_empty(inputs.shape[0], rows)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        result[:, first:last] = torch.nn.functional.linear(inputs, tile(first, last))
    return result


class TileKernel:
    """Codes as small as stored, any group size, zero points, column order or type; 8-bit inputs are simulated."""

    def __init__(self, weight: QuantizedWeight, activations: Activations) -> None:
        self._rows, self._columns = weight.codes.shape
        self._bits = weight.bits
        self._codes = _pack_nibbles(weight.codes) if weight.bits == 4 else weight.codes.contiguous()
        self._scales = weight.scales.contiguous()
        self._zeros = weight.zeros
        self._group = weight.group_of_column
        self._inputs = InputQuantizer(weight, activations)
        suffix = ", 8-bit inputs simulated" if activations != "none" else ""
        self.label = f"dequantized by tiles{suffix}"

    @property
    def bytes(self) -> int:
        """Memory of codes, scales and zero points."""
        parts = (self._codes, self._scales, self._zeros, self._group)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        wide = inputs if inputs.device.type != "cpu" else inputs.float()
        wide = self._inputs.simulate(wide)
        return multiply_by_tiles(wide, self._rows, lambda first, last: self._tile(first, last, wide.dtype)).to(
            inputs.dtype
        )

    def _tile(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        codes = self._codes[first:last]
        values = (_unpack_nibbles(codes, self._columns) if self._bits == 4 else codes).to(torch.float32)
        scales = self._scales[first:last].float()
        zeros = None if self._zeros is None else self._zeros[first:last].float()
        groups = scales.shape[1]
        if self._group is None and self._columns % groups == 0:
            grouped = values.view(last - first, groups, -1)
            grouped = grouped if zeros is None else grouped - zeros[:, :, None]
            return (grouped * scales[:, :, None]).view(last - first, self._columns).to(dtype)
        size = -(-self._columns // groups)
        group = self._group if self._group is not None else torch.arange(self._columns, device=codes.device) // size
        values = values if zeros is None else values - zeros[:, group]
        return (values * scales[:, group]).to(dtype)


class InputQuantizer:
    """8-bit inputs as compressed-tensors defines them: symmetric per token while running, or one stored scale."""

    def __init__(self, weight: QuantizedWeight, activations: Activations) -> None:
        self._activations = activations
        self._float8 = weight.codes.dtype is torch.float8_e4m3fn
        self._scale = None if weight.input_scale is None else float(weight.input_scale.item())
        self.static_scale = self._scale if activations == "static" else None
        self.zero = 0 if weight.input_zero is None else int(weight.input_zero.item())

    def codes(self, inputs: Tensor) -> tuple[Tensor, Tensor | float]:
        """Whole numbers -128..127 as floats [tokens, columns], zero point included, and their scale [tokens, 1]."""
        scale: Tensor | float
        if self._activations == "static":
            assert self._scale is not None
            scale = self._scale
        else:
            scale = inputs.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-12) * (2.0 / 255.0)
        codes = torch.round(inputs.float() / scale)
        if self.zero:
            codes += self.zero
        return codes.clamp_(-128.0, 127.0), scale

    def simulate(self, inputs: Tensor) -> Tensor:
        """What the layer's input is after it was stored in 8 bits."""
        if self._activations == "none":
            return inputs
        if self._float8:
            return self._simulate_float8(inputs)
        codes, scale = self.codes(inputs)
        return ((codes - self.zero) * scale).to(inputs.dtype)

    def _simulate_float8(self, inputs: Tensor) -> Tensor:
        largest = torch.finfo(torch.float8_e4m3fn).max
        scale: Tensor | float
        if self._activations == "static":
            assert self._scale is not None
            scale = self._scale
        else:
            scale = inputs.abs().amax(dim=-1, keepdim=True).float().clamp_(min=1e-12) / largest
        codes = (inputs.float() / scale).clamp_(-largest, largest).to(torch.float8_e4m3fn)
        return (codes.float() * scale).to(inputs.dtype)


def _pack_nibbles(codes: Tensor) -> Tensor:
    """int8 codes -8..7 [rows, columns] as uint8 [rows, ceil(columns / 2)], the even column in the low half."""
    shifted = (codes + 8).to(torch.uint8)
    if shifted.shape[1] % 2:
        shifted = torch.nn.functional.pad(shifted, (0, 1))
    return shifted[:, 0::2] | (shifted[:, 1::2] << 4)


def _unpack_nibbles(packed: Tensor, columns: int) -> Tensor:
    pairs = torch.stack((packed & 0xF, packed >> 4), dim=-1).flatten(-2)
    return pairs[:, :columns].to(torch.int8) - 8
