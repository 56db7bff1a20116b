"""Choosing how much scale to move from inputs to weights: the exponent whose rounded outputs come closest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.models.stored_weights import dequantize
from qtool.quantize.activations import round_input
from qtool.quantize.contract import BlockWork, LayerWork
from qtool.quantize.grid import round_to_grid
from qtool.quantize.moments import inputs_of
from qtool.quantize.rescaling import Rescaling, changes_nothing, rescalings

_TOKENS = 512
_ROWS = 512
_REACHES = (1.0, 0.64)  # shares of the largest magnitude that a static input may span
_SMALLEST = 1e-4

ScalesFor = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Search:
    """Exponents to try; whether inputs are rounded to 8 bits as well; how inputs and weights make scales."""

    exponents: tuple[float, ...]
    scales: ScalesFor
    rounds_inputs: bool


def awq_scales(inputs: Tensor, weights: Tensor, exponent: float) -> Tensor:
    """Mean magnitude of each input channel to the power `exponent`, centred around 1; `weights` plays no part."""
    scales = inputs.abs().mean(0).clamp(min=_SMALLEST) ** exponent
    return scales / (scales.max() * scales.min()).sqrt()


def smooth_scales(inputs: Tensor, weights: Tensor, exponent: float) -> Tensor:
    """max|x|^a / max|w|^(1-a) for each channel, centred around 1."""
    reach = inputs.abs().amax(0).clamp(min=_SMALLEST)
    scales = reach**exponent / weights.abs().amax(0).clamp(min=_SMALLEST) ** (1 - exponent)
    return scales / (scales.max() * scales.min()).sqrt()


def rescale_block(block: BlockWork, search: Search) -> None:
    """Moves scale wherever that brings rounded outputs closer and provably changes nothing else."""
    assert block.activations is not None  # the stage refuses a recipe that needs data and got none
    for rescaling in rescalings(block):
        inputs = inputs_of(block.activations, rescaling.readers[0], held_out=False, limit=_TOKENS)
        scales = _best(rescaling, inputs, search)
        if scales is not None and changes_nothing(block, rescaling):
            rescaling.apply(scales)


def _best(rescaling: Rescaling, inputs: Tensor, search: Search) -> Tensor | None:
    """The scales [channels] with the least output error, or None where the block is best left alone: scales are made
    from one half of the tokens and judged by the other, as static inputs are clipped by what they meet in service."""
    made_from, judged_by = inputs[::2], inputs[1::2]
    weights = [_some_rows(reader.weight()) for reader in rescaling.readers]
    together = torch.cat(weights)
    trial = _Trial(rescaling.readers, weights, made_from, judged_by, search.rounds_inputs)
    best, least = None, trial.error(None)
    for exponent in search.exponents:
        scales = rescaling.shared(search.scales(made_from, together, exponent))
        error = trial.error(rescaling.spread(scales))
        if error < least:
            best, least = scales, error
    return best


def _some_rows(weight: Tensor) -> Tensor:
    """Up to 512 rows, evenly taken: the error is a sum over rows, and its minimum shows on a part of them."""
    return weight[:: max(1, -(-len(weight) // _ROWS))]


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What a choice of scales is tried on: readers, some rows of their weights, and the two halves of the tokens."""

    readers: Sequence[LayerWork]
    weights: Sequence[Tensor]
    made_from: Tensor
    judged_by: Tensor
    rounds_inputs: bool

    def error(self, scales: Tensor | None) -> float:
        """Squared error of the readers' outputs with weights, and inputs where they are served so, rounded."""
        moves: Tensor | float = 1.0 if scales is None else scales
        rounded = [
            dequantize(round_to_grid(weight * moves, reader.grid)).float()
            for reader, weight in zip(self.readers, self.weights, strict=True)
        ]
        if not self.rounds_inputs:
            return self._output_error(self.judged_by / moves, rounded, self.judged_by)
        if not self.readers[0].static:
            return self._output_error(_rounded(self.judged_by / moves, None), rounded, self.judged_by)
        largest = (self.made_from / moves).abs().amax()
        reaches = [(largest * share / 127.5).reshape(1) for share in _REACHES]
        errors = [self._output_error(_rounded(self.made_from / moves, x), rounded, self.made_from) for x in reaches]
        scale = reaches[errors.index(min(errors))]
        return self._output_error(_rounded(self.judged_by / moves, scale), rounded, self.judged_by)

    def _output_error(self, served: Tensor, rounded: Sequence[Tensor], inputs: Tensor) -> float:
        pairs = zip(rounded, self.weights, strict=True)
        return sum(float((served @ found.t() - inputs @ weight.t()).square().sum()) for found, weight in pairs)


def _rounded(inputs: Tensor, scale: Tensor | None) -> Tensor:
    return round_input(inputs, float8=False, scale=scale)
