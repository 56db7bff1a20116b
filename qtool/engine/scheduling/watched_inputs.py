"""Histograms of what goes into named layers during one pass."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qtool.kernels.log2_histogram import count_bins


class Watched:
    """Counts by layer, one add for every call of the layer."""

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Counts the values of one input."""
        counts = count_bins(values)
        known = self._counts.get(name)
        self._counts[name] = counts if known is None else known + counts

    def counts(self) -> tuple[tuple[str, NDArray[np.int64]], ...]:
        """Name and int64 [BINS] of each layer that ran."""
        return tuple((name, counts.cpu().numpy()) for name, counts in self._counts.items())


@contextlib.contextmanager
def watched_inputs(model: Any, layers: Sequence[str]) -> Iterator[Watched]:
    """While inside, the first input of each of `layers` that `model` has is counted."""
    watched = Watched()
    handles = []
    for name, module in model.named_modules():
        if name in layers:

            def count(module: Any, given: tuple[Any, ...], name: str = name) -> None:
                if given and isinstance(given[0], Tensor):
                    watched.add(name, given[0])

            handles.append(module.register_forward_pre_hook(count))
    try:
        yield watched
    finally:
        for handle in handles:
            handle.remove()


def log_probabilities(logits: Tensor) -> NDArray[np.float32]:
    """Natural logarithms of the distributions: float32 [rows, vocabulary]."""
    logprobs: NDArray[np.float32] = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
    return logprobs
