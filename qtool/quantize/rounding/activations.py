"""8-bit inputs emulated in floating point, number for number as compressed-tensors defines them."""

from typing import Any

import torch
from torch import Tensor, nn

from qtool.quantize.rounding.grid import FLOAT8_MAX

_STEPS = 255


def round_input(values: Tensor, *, float8: bool, scale: Tensor | None, zero: Tensor | None = None) -> Tensor:
    """`values` [..., columns] on the grid of an 8-bit input: one scale a token, or the stored `scale` [1], around the
    stored zero point `zero` [1] where there is one."""
    if scale is None:
        largest = values.abs().amax(-1, keepdim=True)
        scale = largest / FLOAT8_MAX if float8 else largest / (_STEPS / 2)
        scale = torch.where(scale == 0, torch.full_like(scale, torch.finfo(scale.dtype).eps), scale)
    scaled = values / scale
    if float8:
        return scaled.clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn).to(values.dtype) * scale
    if zero is None:
        return scaled.clamp(-128, 127).round() * scale
    return ((scaled + zero).clamp(-128, 127).round() - zero) * scale


def quantize_inputs(module: nn.Module, *, float8: bool, scale: Tensor | None, zero: Tensor | None = None) -> Any:
    """Makes `module` see its inputs in 8 bits from now on; returns the handle that undoes it."""
    stored = None if scale is None else scale.detach().clone()
    stored_zero = None if zero is None else zero.detach().clone()

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        values = inputs[0]
        known = None if stored is None else stored.to(dtype=values.dtype, device=values.device)
        middle = None if stored_zero is None else stored_zero.to(dtype=values.dtype, device=values.device)
        return (round_input(values, float8=float8, scale=known, zero=middle), *inputs[1:])

    return module.register_forward_pre_hook(before)
