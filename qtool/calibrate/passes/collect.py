"""Watches the inputs of linear layers while blocks run, and outputs where asked, and makes statistics of them."""

import contextlib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qtool.calibrate.statistics.block_sums import Running, Scratch
from qtool.calibrate.statistics.inputs import INPUTS_ONLY, Group, InputStatistics, Kept
from qtool.errors import NumericError, UsageError
from qtool.models.architecture import LinearLayer


class Collector:
    """Statistics of the inputs of `layers`, one pass over the rows, one group after another.

    `reads` maps each layer seen so far to the layer its input is kept under: layers that are given one and the same
    tensor (q, k, v; gate, up) are counted once. The output of each layer in `outputs` is kept as `<layer>.output`.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        kept: Kept = INPUTS_ONLY,
        outputs: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.reads: dict[str, str] = {}
        self._kept = kept
        self._layers, self._outputs = layers, outputs or {}
        self._running: dict[str, Running] = {}
        self._now: dict[str, Tensor] = {}
        self._scratch = Scratch()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks the layers for the duration."""
        handles = [
            module.register_forward_pre_hook(self._before(name), with_kwargs=True)
            for name, module in self._layers.items()
        ]
        handles += [module.register_forward_hook(self._after(name)) for name, module in self._outputs.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.inference_mode()
    def row(self, row: int, group: Group, sampled: Mapping[int, float], where: str) -> None:
        """Takes in what was seen during one row; `sampled` maps token positions to their draws.

        Raises NumericError naming the layer and `where` the row came from, if a value was NaN or infinite.
        """
        for name in tuple(self._now):
            values = self._now.pop(name)  # let go as soon as it is counted
            if name not in self._running:
                self._running[name] = Running(values.shape[-1], values.device, self._kept, self._scratch)
            bad = self._running[name].add(values, group, sampled)
            if bad:
                what = "as its output" if name in map(output_name, self._outputs) else "in its input"
                raise NumericError(
                    f"{name}: {bad} NaN or infinite values {what}; first made by row {row} of the set, {where}"
                )

    def finish(self) -> tuple[InputStatistics, ...]:
        """Statistics of everything seen, in order of first use."""
        return tuple(running.finish(name) for name, running in self._running.items())

    def _before(self, name: str) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            values = arguments[0] if arguments else keywords["input"]
            if name not in self.reads:
                same = (other for other in self._layers if self._now.get(other) is values)
                self.reads[name] = next(same, name)
            if self.reads[name] == name:
                self._see(name, values)

        return hook

    def _after(self, layer: str) -> Any:
        name = output_name(layer)

        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            self.reads[name] = name
            self._see(name, output)

        return hook

    def _see(self, name: str, values: Tensor) -> None:
        seen = self._now.get(name)
        self._now[name] = values if seen is None else _joined(seen, values)


def layers_named(patterns: Sequence[str], linears: Sequence[LinearLayer]) -> frozenset[str]:
    """Layers inside blocks that `patterns` name; the output head's product is never made. Raises UsageError."""
    inside = [layer.name for layer in linears if layer.block is not None]
    for pattern in patterns:
        if not fnmatch.filter(inside, pattern):
            raise UsageError(f"outputs {pattern!r}: no linear layer of a block is called so; for example *.k_proj")
    return frozenset(name for pattern in patterns for name in fnmatch.filter(inside, pattern))


def output_name(layer: str) -> str:
    """What the output of `layer` is kept under; a linear layer has no modules inside, so no other can be called so."""
    return f"{layer}.output"


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Both inputs of a layer that is called twice in one pass, as one list of tokens."""
    return torch.cat([first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])])
