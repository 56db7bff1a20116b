"""Choosing how much scale to move from inputs to weights: the exponent whose rounded outputs come closest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.formats.stored_weights import dequantize
from qtool.quantize.contract import BlockWork, LayerWork
from qtool.quantize.rounding.activations import round_input
from qtool.quantize.rounding.error_feedback import feedback_of, rounded_with_feedback
from qtool.quantize.rounding.grid import round_to_grid
from qtool.quantize.rounding.held_out import HeldOut, balanced_importance
from qtool.quantize.rounding.moments import Moments, inputs_of, second_moments
from qtool.quantize.rounding.rescaling import Rescaling, changes_nothing, rescalings

_TOKENS = 2048  # that scales are made from
_JUDGES = 512  # that judge them
_ROWS = 512
_REACHES = (1.0, 0.64)  # shares of the largest magnitude that a static input may span
_SMALLEST = 1e-4
_DAMPING = 0.01

ScalesFor = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Search:
    """Exponents to try; whether inputs are rounded to 8 bits as well; how inputs and weights make scales; whether the
    weights are then rounded with error feedback, to which other scales may suit than to rounding."""

    exponents: tuple[float, ...]
    scales: ScalesFor
    rounds_inputs: bool
    feedback: bool = False


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
        reader = rescaling.readers[0]
        inputs = inputs_of(block.activations, reader, held_out=False, limit=_TOKENS)
        judges = inputs_of(block.activations, reader, held_out=True, limit=_JUDGES)
        if not len(judges):  # nothing was held out, or it did not come here: every second token judges the others
            inputs, judges = inputs[::2], inputs[1::2][:_JUDGES]
        scales = _best(rescaling, inputs, judges, search) if len(inputs) and len(judges) else None
        if scales is not None and search.feedback:
            scales = _best_for_feedback(rescaling, scales, second_moments(block.activations, reader), judges)
        if scales is not None and changes_nothing(block, rescaling):
            rescaling.apply(scales)


def _best(rescaling: Rescaling, made_from: Tensor, judged_by: Tensor, search: Search) -> Tensor | None:
    """The scales [channels] with the least output error, or None where the block is best left alone: scales are made
    from tokens a method may learn from and judged by others, as static inputs are clipped by what they meet in
    service."""
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


def _best_for_feedback(rescaling: Rescaling, scales: Tensor, moments: Moments, judges: Tensor) -> Tensor | None:
    """`scales`, their square roots, or None: whichever leaves the outputs closest when error feedback rounds."""
    held_out = HeldOut(judges)
    weights = [_some_rows(reader.weight()) for reader in rescaling.readers]
    best, least = None, torch.inf
    for candidate in (None, scales.sqrt(), scales):
        moves = torch.ones(judges.shape[1]).to(scales) if candidate is None else rescaling.spread(candidate)
        feedback = feedback_of(moments.second / torch.outer(moves, moves), damping=_DAMPING, by_size=True)
        if feedback is None:
            continue
        error = 0.0
        for reader, weight in zip(rescaling.readers, weights, strict=True):
            moved = weight * moves
            found = rounded_with_feedback(moved, reader.grid, feedback, moments.second.diagonal() / moves.square())
            error += held_out.error(weight, dequantize(found).to(weight) / moves)
        if error < least:
            best, least = candidate, error
    return best


def _some_rows(weight: Tensor) -> Tensor:
    """Up to 512 rows, evenly taken: the error is a sum over rows, and its minimum shows on a part of them."""
    return weight[:: max(1, -(-len(weight) // _ROWS))]


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What a choice of scales is tried on: readers, some rows of their weights, and the tokens of both kinds."""

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
        error = 0.0
        for found, weight in zip(rounded, self.weights, strict=True):
            outputs = inputs @ weight.t()
            error += float(((served @ found.t() - outputs).square() * balanced_importance(outputs)).sum())
        return error


def _rounded(inputs: Tensor, scale: Tensor | None) -> Tensor:
    return round_input(inputs, float8=False, scale=scale)
