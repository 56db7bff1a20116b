"""Unquantized linear layers: compiled or prepacked by oneDNN where that was measured faster, plain otherwise."""

import functools

import torch
from torch import Tensor

from qtool.kernels.cpu import native_cpu
from qtool.kernels.cpu.native_cpu import NativeKernel
from qtool.kernels.cpu.native_many import MANY, measured_faster
from qtool.machine.device import has_bfloat16

COMPILED = 1 << 16  # scalars from which a weight of bfloat16 numbers is multiplied as that, whatever it is computed in
LARGE = 1 << 20  # weights of fewer scalars stay in cache, where prepacking only adds oneDNN's own overhead


@functools.lru_cache(maxsize=4)
def prepack_works(dtype: torch.dtype) -> str:
    """Empty when oneDNN can prepack and multiply `dtype` here, else why not."""
    weight = torch.eye(32, dtype=dtype)
    inputs = torch.arange(64, dtype=dtype).view(2, 32)
    try:
        result = _product(inputs, torch.ops.mkldnn._reorder_linear_weight(weight, 1), None)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return "" if torch.equal(result, inputs) else "its products are not exact here"


class DenseKernel:
    """A weight [rows, columns] as numbers; `prepacked` replaces it by oneDNN's own copy."""

    def __init__(self, weight: Tensor) -> None:
        rows, columns = weight.shape
        on_cpu = weight.device.type == "cpu"
        self.plain: Tensor | None = None  # the weight as it was given, where it is multiplied as that
        self._many: Tensor | None = None  # the weight as torch multiplies it, where that is faster for many rows
        self.compiled = _compiled(weight) if on_cpu else None
        if self.compiled is not None:
            if weight.dtype is torch.bfloat16 and has_bfloat16():
                faster = measured_faster(self.compiled, lambda inputs: torch.nn.functional.linear(inputs, weight))
                self._many = weight if faster else None
            self.prepacked, self.bytes, self.label = True, self.compiled.bytes, self.compiled.label
            return
        self.prepacked = on_cpu and rows * columns >= LARGE and prepack_works(weight.dtype) == ""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1) if self.prepacked else weight
        self.plain = None if self.prepacked else weight
        self.bytes = rows * columns * weight.element_size()
        kind = str(weight.dtype).removeprefix("torch.")
        self.label = f"{kind} {'prepacked by oneDNN' if self.prepacked else 'plain product'}"

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        if self.compiled is not None:
            if self._many is not None and inputs.shape[0] >= MANY and inputs.dtype is torch.bfloat16:
                return torch.nn.functional.linear(inputs, self._many)
            return self.compiled.multiply(inputs)
        if self.prepacked:
            return _product(inputs, self._weight, None)
        return torch.nn.functional.linear(inputs, self._weight)


def _compiled(weight: Tensor) -> NativeKernel | None:
    """The compiled product with `weight` as bfloat16, where its numbers are all that and it is not tiny.

    A bfloat16 model that is computed in float32 so takes half the memory and half the time, and gives the same numbers.
    """
    if weight.dtype not in (torch.float32, torch.bfloat16) or weight.numel() < COMPILED or native_cpu.refusal():
        return None
    if weight.dtype is torch.bfloat16:
        return native_cpu.bfloat16_kernel(weight) if weight.shape[1] % native_cpu.ALIGN == 0 else None
    return native_cpu.bfloat16_kernel(weight) if torch.equal(weight.bfloat16().float(), weight) else None


def _product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return result
