"""Every layer of a block by error feedback, in the order they run; where that does not work, rounded and recorded."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.quantize.contract import BlockWork, LayerResult, LayerWork
from qtool.quantize.request.recipe import choice_problem, number_problem, option
from qtool.quantize.rounding.activations import round_input
from qtool.quantize.rounding.error_feedback import (
    Feedback,
    feedback_of,
    grid_scales,
    round_with_feedback,
    times_inverse,
)
from qtool.quantize.rounding.grid import clipped_share, stored
from qtool.quantize.rounding.held_out import HeldOut, held_out_of
from qtool.quantize.rounding.moments import Moments, inputs_of, second_moments, sharing_inputs
from qtool.quantize.rounding.nearest import nearest
from qtool.records.variant import Recipe

OPTIONS = {
    "damping": "share of the mean diagonal added to the second moments; default 0.01",
    "order": "size (largest inputs first) or columns (as they come); default size",
    "propagate": "how much of the drift from the unquantized model each layer makes up for, 0 to 1; default 0.5 where "
    "a layer has seen 32 tokens for each of its columns, else 0",
    "clip": "none or mse (draw the ends of the grid in where that lowers the weighted error); default mse",
}
PROPAGATE = "propagate"
PROPAGATE_DEFAULT = "0.5"
_DAMPING = 0.01
_TELLING = 32  # tokens a column: of fewer, what drifted tells of them and misleads on all other text
_HELD_OUT_TOKENS = 512
_ROWS = 512
_REACHES = tuple(0.8**step for step in range(16))  # down to 1/28 of the largest magnitude
_ENOUGH = 2  # tokens a column: below it, an expert that no held-out token reached is rounded to nearest
_PLENTY = 4  # tokens a column: below it, held-out tokens may ask for more damping
_STRONGER = (10.0, 100.0)  # times the damping


def option_problems(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return (
        *number_problem(recipe, "damping", "0.01", 1e-6, 1.0),
        *number_problem(recipe, PROPAGATE, PROPAGATE_DEFAULT, 0.0, 1.0),
        *choice_problem(recipe, "order", "size", ("size", "columns")),
        *choice_problem(recipe, "clip", "mse", ("none", "mse")),
    )


def propagated(recipe: Recipe, *, tokens: int, columns: int) -> float:
    """How much of the drift a layer makes up for that has seen `tokens` tokens of `columns` columns. Held-out rows of
    the same set cannot tell when this misleads: they are of the kind that was learnt."""
    if PROPAGATE not in dict(recipe.options) and tokens < _TELLING * columns:
        return 0.0
    return float(option(recipe, PROPAGATE, PROPAGATE_DEFAULT))


def quantize_layers(
    block: BlockWork, *, method: str, feedback: bool = True, own_ranges: bool = False
) -> Iterator[LayerResult]:
    """The result of every layer of `block`, in the order they run: by error feedback, or rounded to nearest with
    the ends of the grid drawn in for the inputs that were seen. What is learnt from the tokens is kept for a layer
    where it brings its outputs closer on held-out rows. `own_ranges` finds a scale for static inputs anew, for methods
    that have moved scale since the calibration."""
    assert block.activations is not None  # the stage refuses a recipe that needs data and got none
    groups = sharing_inputs(block.layers)
    found = block.activations.base_inputs([together[0] for together in groups])
    base = {} if found is None else dict(found)
    del found
    for together in groups:  # what the unquantized model had there is let go of once it has been used
        before = base.pop(together[0].name, None)
        learnt = None if before is None else before[: block.activations.learnt_batches]
        kept = None if before is None else before[block.activations.learnt_batches :]
        moments = second_moments(block.activations, together[0], learnt)
        held_out = held_out_of(block.activations, together[0], kept)
        quantize = _quantize_together if feedback else _round_together
        for work, result in zip(together, quantize(block, together, moments, held_out, method), strict=True):
            if own_ranges and work.static:
                scale = _input_scale(block, together, moments)
                result = replace(result, weight=replace(result.weight, input_scale=scale))
            yield result


def _input_scale(block: BlockWork, together: list[LayerWork], moments: Moments) -> Tensor:
    """The scale [1] of a static 8-bit input that leaves the outputs of the layers reading it closest."""
    assert block.activations is not None  # the stage refuses a recipe that needs data and got none
    inputs = inputs_of(block.activations, together[0], held_out=False, limit=_HELD_OUT_TOKENS)
    weight = torch.cat([work.weight() for work in together])
    weight = weight[:: max(1, len(weight) // _ROWS)]
    expected = inputs @ weight.t()
    best, least = moments.reach.reshape(1) / 127.5, torch.inf
    for share in _REACHES:
        scale = moments.reach.reshape(1) * share / 127.5
        error = float((round_input(inputs, float8=False, scale=scale) @ weight.t() - expected).square().sum())
        if error < least:
            best, least = scale, error
    return best


def _round_together(
    block: BlockWork, together: list[LayerWork], moments: Moments, held_out: HeldOut, method: str
) -> list[LayerResult]:
    seen = moments.tokens > 0
    solvable = feedback_of(moments.second, damping=_DAMPING, by_size=False) if seen else None
    if solvable is not None:
        _aim_at_base(block, together, moments, solvable, held_out)
    results = []
    for work in together:
        result = nearest(work, clip=True, importance=moments.second.diagonal() if seen else None)
        if len(held_out):
            weight, whole = work.weight(), nearest(work)  # the grid's ends are drawn in where held-out rows agree
            if _error(held_out, weight, whole.weight) < _error(held_out, weight, result.weight):
                result = whole
        reason = "" if seen else "no calibration token reached it"
        done = method if seen else "rtn"
        results.append(replace(result, method=done, tokens_seen=moments.tokens, reason=reason))
    return results


def _quantize_together(
    block: BlockWork, together: list[LayerWork], moments: Moments, held_out: HeldOut, method: str
) -> list[LayerResult]:
    damping = float(option(block.recipe, "damping", "0.01"))
    by_size = option(block.recipe, "order", "size") == "size"
    clip = option(block.recipe, "clip", "mse") == "mse"
    feedback = feedback_of(moments.second, damping=damping, by_size=by_size) if moments.tokens else None
    if feedback is None:
        reason = "no calibration token reached it" if not moments.tokens else "its inputs' second moments are singular"
        return [replace(nearest(work, clip=clip, reason=reason), tokens_seen=moments.tokens) for work in together]
    _aim_at_base(block, together, moments, feedback, held_out)
    columns = together[0].layer.columns
    stronger = _STRONGER if len(held_out) and moments.tokens < _PLENTY * columns else ()
    results = [_with_feedback(work, moments, feedback, clip=clip) for work in together]
    for factor in stronger:  # moments of few tokens are trusted less, as far as that helps on rows they did not see
        more = feedback_of(moments.second, damping=min(damping * factor, 1.0), by_size=by_size)
        if more is not None:
            results = [
                _closer(work, result, _with_feedback(work, moments, more, clip=clip), held_out)
                for work, result in zip(together, results, strict=True)
            ]
    few = moments.tokens < _ENOUGH * columns
    return [
        _kept_where_it_helps(work, replace(result, method=method), held_out, clip=clip, few=few)
        for work, result in zip(together, results, strict=True)
    ]


def _closer(work: LayerWork, first: LayerResult, second: LayerResult, held_out: HeldOut) -> LayerResult:
    """The one that leaves the held-out outputs of `work` closer."""
    weight = work.weight()
    is_second = _error(held_out, weight, second.weight) < _error(held_out, weight, first.weight)
    return second if is_second else first


def _with_feedback(work: LayerWork, moments: Moments, feedback: Feedback, *, clip: bool) -> LayerResult:
    weight = work.weight()
    scales, zeros = grid_scales(weight, work.grid, moments.second.diagonal() if clip else None)
    codes = round_with_feedback(weight, scales, zeros, work.grid, feedback)
    return LayerResult(
        work.name,
        weight=stored(codes, scales, zeros, work.grid),
        method="gptq",
        clipped_share=clipped_share(weight, scales, zeros, work.grid),
        dead_columns=feedback.dead_columns,
        tokens_seen=moments.tokens,
        damping=feedback.damping,
    )


def _aim_at_base(
    block: BlockWork, together: list[LayerWork], moments: Moments, feedback: Feedback, held_out: HeldOut
) -> None:
    """Makes the weights of layers that read one input such that they give, on inputs as they now are, what the
    unquantized model would have; each as far as that brings it closer on held-out rows."""
    largest = propagated(block.recipe, tokens=moments.tokens, columns=together[0].layer.columns)
    if largest == 0 or (moments.missing is None and moments.drift is None):
        return
    turned = None
    if moments.drift is not None and sum(work.layer.rows for work in together) > moments.drift.shape[0]:
        turned = times_inverse(moments.drift, feedback)  # solved once for all: fewer rows than they have together
    for work in together:
        weight = work.weight()
        if moments.missing is not None:
            move = times_inverse(moments.missing, feedback)
        elif turned is not None:
            move = weight @ turned
        else:
            assert moments.drift is not None  # one of the two, as was asked above
            move = times_inverse(weight @ moments.drift, feedback)
        share = held_out.best_share(weight, move, largest) if len(held_out) else largest
        if share > 0:
            work.master = torch.add(weight, move, alpha=share)


def _kept_where_it_helps(
    work: LayerWork, result: LayerResult, held_out: HeldOut, *, clip: bool, few: bool
) -> LayerResult:
    """What was learnt can mislead: plain rounding where it leaves held-out outputs of `work` closer, else `result`."""
    if not len(held_out) and not (few and work.layer.experts):
        return result  # no tokens were held out at all, or none reached an expert that has seen enough
    plain = nearest(work, clip=clip)
    if len(held_out) and _closer(work, result, plain, held_out) is result:
        return result
    told = "rounding does better held out" if len(held_out) else "none held out to confirm feedback"
    reason = f"{result.tokens_seen} tokens for {work.layer.columns} columns: {told}"
    return replace(plain, tokens_seen=result.tokens_seen, reason=reason)


def _error(held_out: HeldOut, weight: Tensor, kept: StoredWeight) -> float:
    """What rounding costs the layer's own outputs; what they lack of the unquantized model's is in its weight."""
    return HeldOut(held_out.inputs).error(weight, dequantize(kept).to(weight))
