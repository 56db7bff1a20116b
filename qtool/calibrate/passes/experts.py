"""Mixtures of experts: how many tokens each expert was given."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ExpertCounter:
    """Tokens routed to each expert of the `modules`, which are given the routing as a tensor of expert numbers."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._counts = {name: np.zeros(number_of_experts(module), np.int64) for name, module in modules.items()}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks the modules for the duration."""
        handles = [
            module.register_forward_pre_hook(self._hook(name), with_kwargs=True)
            for name, module in self._modules.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def finish(self) -> dict[str, NDArray[np.int64]]:
        """Tokens per expert by module: int64 [experts]."""
        return self._counts

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            routing = next((value for value in (*arguments, *keywords.values()) if _is_routing(value)), None)
            if routing is not None:
                experts = len(self._counts[name])
                # one number past the last expert marks a token that is routed to none
                chosen = torch.bincount(routing.reshape(-1).cpu(), minlength=experts + 1)[:experts]
                self._counts[name] = self._counts[name] + chosen.numpy()

        return hook


def expert_modules(block: nn.Module, name: str) -> dict[str, nn.Module]:
    """Modules inside `block` that hold the weights of all experts in three-dimensional tensors, by name."""
    return {
        f"{name}.{inner}": module
        for inner, module in block.named_modules()
        if "experts" in type(module).__name__.lower()  # a convolution has three dimensions too
        and any(parameter.ndim == 3 for parameter in module.parameters(recurse=False))
    }


def number_of_experts(module: nn.Module) -> int:
    """Experts that `module` holds."""
    return max(int(parameter.shape[0]) for parameter in module.parameters(recurse=False) if parameter.ndim == 3)


def _is_routing(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.int64, torch.int32)
