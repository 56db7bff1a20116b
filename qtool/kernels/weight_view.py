"""The weight of a quantized layer for models whose own code uses it: Mamba multiplies by `dt_proj.weight` itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qtool.kernels.contract import Kernel

_LOOKS = frozenset(
    {"dtype", "device", "shape", "ndim", "layout", "requires_grad", "is_meta", "is_cuda"}
    | {"size", "dim", "numel", "is_floating_point", "element_size"}
)


class WeightView(Tensor):
    """[rows, columns], of no size in memory until something is computed with it: asked for its type or shape it
    answers at once, in anything else the rows that `numbers` gives take its place, in the type of the other operand."""

    numbers: Callable[[torch.device], Tensor]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            name = getattr(function, "__name__", "")
            if name == "__get__":  # an attribute: the descriptor knows its name
                name = getattr(getattr(function, "__self__", None), "__name__", "")
            if name in _LOOKS:
                return function(*args, **(kwargs or {}))
            plain = (value for value in args if isinstance(value, Tensor) and not isinstance(value, WeightView))
            like = next((value for value in plain if value.is_floating_point()), torch.empty(0))
            real = [
                value.numbers(like.device).to(like.dtype) if isinstance(value, WeightView) else value for value in args
            ]
            return function(*real, **(kwargs or {}))


def weight_view(rows: int, columns: int, numbers: Callable[[torch.device], Tensor]) -> Tensor:
    """A weight that can be looked at, and multiplied by, which costs its numbers each time."""
    view = torch.full((1, 1), torch.nan).expand(rows, columns).as_subclass(WeightView)
    view.numbers = numbers
    return view


def numbers_of(kernel: Kernel, columns: int, device: torch.device) -> Tensor:
    """float32 [rows, columns]: what the kernel multiplies by, as it answers unit vectors."""
    return kernel.multiply(torch.eye(columns, device=device)).t()
