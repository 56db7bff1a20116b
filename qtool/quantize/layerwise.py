"""Every layer of a block by error feedback, in the order they run; where that does not work, rounded and recorded."""

from dataclasses import replace

import torch
from torch import Tensor

from qtool.models.stored_weights import StoredWeight, dequantize
from qtool.quantize.activations import round_input
from qtool.quantize.contract import BlockWork, Grid, LayerResult, LayerWork
from qtool.quantize.error_feedback import Feedback, feedback_of, round_with_feedback, times_inverse
from qtool.quantize.grid import best_shrink, clipped_share, scales_of, stored
from qtool.quantize.moments import Moments, inputs_of, second_moments, sharing_inputs
from qtool.quantize.nearest import nearest
from qtool.quantize.recipe import choice_problem, number_problem, option
from qtool.records.variant import Recipe

OPTIONS = {
    "damping": "share of the mean diagonal added to the second moments; default 0.01",
    "order": "size (largest inputs first) or columns (as they come); default size",
    "propagate": "how much of the drift from the unquantized model each layer makes up for, 0 to 1; default 0.5",
    "clip": "none or mse (draw the ends of the grid in where that lowers the weighted error); default mse",
}
PROPAGATE = "propagate"
PROPAGATE_DEFAULT = "0.5"
_DAMPING = 0.01
_HELD_OUT_TOKENS = 512
_ROWS = 512
_REACHES = tuple(0.8**step for step in range(16))  # down to 1/28 of the largest magnitude
_ENOUGH = 2  # tokens a column: below it, held-out tokens must confirm that feedback helps


def option_problems(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return (
        *number_problem(recipe, "damping", "0.01", 1e-6, 1.0),
        *number_problem(recipe, PROPAGATE, PROPAGATE_DEFAULT, 0.0, 1.0),
        *choice_problem(recipe, "order", "size", ("size", "columns")),
        *choice_problem(recipe, "clip", "mse", ("none", "mse")),
    )


def quantize_layers(block: BlockWork, *, method: str, feedback: bool = True, own_ranges: bool = False) -> None:
    """Sets the result of every layer of `block`, in the order they run: by error feedback, or rounded to nearest with
    the ends of the grid drawn in for the inputs that were seen. `own_ranges` finds a scale for static inputs anew, for
    methods that have moved scale since the calibration."""
    assert block.activations is not None  # the stage refuses a recipe that needs data and got none
    groups = sharing_inputs(block.layers)
    found = block.activations.base_inputs([together[0] for together in groups])
    base = {} if found is None else dict(found)
    del found
    for together in groups:  # what the unquantized model had there is let go of once it has been used
        moments = second_moments(block.activations, together[0], base.pop(together[0].name, None))
        if feedback:
            _quantize_together(block, together, moments, method)
        else:
            _round_together(block, together, moments, method)
        for work in together:
            if own_ranges and work.static and work.result is not None:
                scale = _input_scale(block, together, moments)
                work.result = replace(work.result, weight=replace(work.result.weight, input_scale=scale))
            block.settle(work)


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


def _round_together(block: BlockWork, together: list[LayerWork], moments: Moments, method: str) -> None:
    seen = moments.tokens > 0
    solvable = feedback_of(moments.second, damping=_DAMPING, by_size=False) if seen else None
    if solvable is not None:
        _aim_at_base(block, together, moments, solvable)
    for work in together:
        found = nearest(work, clip=True, importance=moments.second.diagonal() if seen else None)
        reason = "" if seen else "no calibration token reached it"
        done = method if seen else "rtn"
        work.result = replace(found, method=done, tokens_seen=moments.tokens, reason=reason)


def _quantize_together(block: BlockWork, together: list[LayerWork], moments: Moments, method: str) -> None:
    damping = float(option(block.recipe, "damping", "0.01"))
    by_size = option(block.recipe, "order", "size") == "size"
    clip = option(block.recipe, "clip", "mse") == "mse"
    feedback = feedback_of(moments.second, damping=damping, by_size=by_size) if moments.tokens else None
    if feedback is None:
        reason = "no calibration token reached it" if not moments.tokens else "its inputs' second moments are singular"
        for work in together:
            work.result = replace(nearest(work, clip=clip, reason=reason), tokens_seen=moments.tokens)
        return
    _aim_at_base(block, together, moments, feedback)
    for work in together:
        found = _with_feedback(work, moments, feedback, clip=clip)
        work.result = replace(found, method=method)
    if moments.tokens < _ENOUGH * together[0].layer.columns:
        _keep_what_helps(block, together, clip=clip)


def _with_feedback(work: LayerWork, moments: Moments, feedback: Feedback, *, clip: bool) -> LayerResult:
    weight = work.weight()
    scales, zeros = grid_scales(weight, work.grid, moments.second.diagonal() if clip else None)
    codes = round_with_feedback(weight, scales, zeros, work.grid, feedback)
    return LayerResult(
        weight=stored(codes, scales, zeros, work.grid),
        method="gptq",
        clipped_share=clipped_share(weight, scales, zeros, work.grid),
        dead_columns=feedback.dead_columns,
        tokens_seen=moments.tokens,
        damping=feedback.damping,
    )


def _aim_at_base(block: BlockWork, together: list[LayerWork], moments: Moments, feedback: Feedback) -> None:
    """Makes the weights of layers that read one input such that they give, on inputs as they now are, what the
    unquantized model would have."""
    share = float(option(block.recipe, PROPAGATE, PROPAGATE_DEFAULT))
    if moments.missing is not None:
        for work in together:
            work.master = making_up(work.weight(), moments.missing, feedback, share=share)
    elif moments.drift is not None and sum(work.layer.rows for work in together) > moments.drift.shape[0]:
        turned = times_inverse(moments.drift, feedback)  # solved once for all: fewer rows than they have together
        for work in together:
            work.master = torch.addmm(work.weight(), work.weight(), turned, alpha=share)
    elif moments.drift is not None:
        for work in together:
            work.master = making_up(work.weight(), work.weight() @ moments.drift, feedback, share=share)


def making_up(weight: Tensor, missing: Tensor, feedback: Feedback, *, share: float) -> Tensor:
    """The weight whose outputs also hold what is missing, as far as the inputs x tell of it: the least-squares answer,
    `share` of the way (Arai and Ichikawa, arXiv 2504.09629). `missing` [rows, columns] is the mean of m xᵀ with m what
    the outputs lack."""
    return times_inverse(missing, feedback).mul_(share).add_(weight)


def grid_scales(weight: Tensor, grid: Grid, importance: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points of a weight; with `importance` [columns] its grid's ends are drawn in where that helps."""
    shrink = 1.0 if importance is None else best_shrink(weight, grid, importance=importance)
    return scales_of(weight, grid, shrink=shrink)


def _keep_what_helps(block: BlockWork, together: list[LayerWork], *, clip: bool) -> None:
    """Few tokens can mislead: keeps plain rounding for a layer whose held-out outputs it leaves closer."""
    assert block.activations is not None  # the stage refuses a recipe that needs data and got none
    inputs = inputs_of(block.activations, together[0], held_out=True, limit=_HELD_OUT_TOKENS)
    if not len(inputs) and not together[0].layer.experts:
        return  # no tokens were held out at all
    for work in together:
        result = work.result
        assert result is not None  # set by the caller
        plain = nearest(work, clip=clip)
        weight = work.weight()
        with_feedback, without = (_output_error(inputs, weight, kept) for kept in (result.weight, plain.weight))
        if without < with_feedback or not len(inputs):
            told = "rounding does better held out" if len(inputs) else "none held out to confirm feedback"
            reason = f"{result.tokens_seen} tokens for {work.layer.columns} columns: {told}"
            work.result = replace(plain, tokens_seen=result.tokens_seen, reason=reason)


def _output_error(inputs: Tensor, weight: Tensor, kept: StoredWeight) -> float:
    difference = dequantize(kept).to(weight) - weight
    return float(torch.linalg.matrix_norm(inputs @ difference.t()))
