"""Rounding one column at a time, each column making up for the errors of those before it: the core of GPTQ.

Frantar et al., "GPTQ", 2022 (arXiv 2210.17323), in the form of Chee et al., "QuIP", 2023 (arXiv 2307.13304), which
proves both equal: with H = V D Vᵀ, V unit triangular, column k becomes Q(w_k + (W - Ŵ)[:, done] V[done, k]). With the
columns that come first put last, V is the Cholesky factor of H divided by its diagonal: one factorization, no inverse.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.formats.stored_weights import StoredWeight
from qtool.quantize.contract import Grid
from qtool.quantize.rounding.grid import best_shrink, group_count, scales_of, stored

_BLOCK = 128  # columns that are brought up to date by one matrix product with the errors of all before them
_INNER = 16  # columns among which errors are fed back one by one: few enough that they stay in the processor's cache
_DAMPING_STEPS = (1, 10, 100)


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """How errors are fed back: `order` int64 [columns], the columns from the last to be rounded to the first; `unit`
    float32 [columns, columns], unit lower triangular, in that order, and `pivots` float32 [columns]: the damped moments
    are unit diag(pivots) unitᵀ; `damping`, the share of the mean diagonal that was added to make them positive."""

    order: Tensor
    unit: Tensor
    pivots: Tensor
    damping: float
    dead_columns: int


def feedback_of(moments: Tensor, *, damping: float, by_size: bool) -> Feedback | None:
    """The feedback for inputs of second moments `moments` float32 [columns, columns]; None where even much damping
    leaves them singular. `by_size` rounds the columns of the largest inputs first.

    A dead column (never excited) feeds nothing back and is fed nothing: it is rounded to nearest.
    """
    diagonal = moments.diagonal()
    dead = diagonal <= 0
    mean = float(diagonal[~dead].mean()) if bool((~dead).any()) else 0.0
    if not mean > 0 or not bool(torch.isfinite(diagonal).all()):
        return None
    columns = len(diagonal)
    smallest_first = torch.argsort(diagonal, stable=True) if by_size else torch.arange(columns).flip(0)
    order = smallest_first.to(moments.device)
    ordered = moments[order][:, order] if by_size else moments.flip(0, 1)
    for step in _DAMPING_STEPS:
        added = damping * step
        ordered.diagonal().copy_((diagonal + torch.where(dead, mean, added * mean))[order])
        factor, failed = torch.linalg.cholesky_ex(ordered)
        if not int(failed) and bool(torch.isfinite(factor.diagonal()).all()):
            diagonal = factor.diagonal().clone()
            return Feedback(order, factor.div_(diagonal), diagonal.square(), added, int(dead.sum()))
    return None


def times_inverse(rows: Tensor, feedback: Feedback) -> Tensor:
    """`rows` float32 [n, columns] times the inverse of the damped moments."""
    solved = torch.linalg.solve_triangular(feedback.unit, rows.t()[feedback.order], upper=False, unitriangular=True)
    solved.div_(feedback.pivots[:, None])
    solved = torch.linalg.solve_triangular(feedback.unit.t(), solved, upper=True, unitriangular=True)
    back = torch.empty_like(solved)
    back[feedback.order] = solved
    return back.t()


def round_with_feedback(weight: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid, feedback: Feedback) -> Tensor:
    """Codes int8 [rows, columns] of a float32 weight on fixed scales [rows, groups]."""
    columns = weight.shape[1]
    order, unit = feedback.order, feedback.unit
    wanted = weight.t().contiguous()[order]  # [columns, rows]: the columns of the weight lie together
    line = _Line(wanted, scales, zeros, grid, (order // (columns // group_count(grid, columns))).tolist())
    codes = torch.empty(wanted.shape, dtype=torch.int8, device=weight.device)
    for end in range(columns, 0, -_BLOCK):
        start = max(end - _BLOCK, 0)
        aimed = wanted[start:end].clone()
        if end < columns:
            aimed.addmm_(unit[end:, start:end].t(), line.errors[end:])
        rounded = torch.empty_like(aimed)
        for last in range(end, start, -_INNER):
            first = max(last - _INNER, start)
            part = slice(first - start, last - start)
            if last < end:
                aimed[part].addmm_(unit[last:end, first:last].t(), line.errors[last:end])
            line.round(range(first, last), aimed[part], unit, rounded[part])
        codes[order[start:end]] = rounded.to(torch.int8)
    return codes.t().contiguous()


def grid_scales(weight: Tensor, grid: Grid, importance: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points of a weight; with `importance` [columns] its grid's ends are drawn in where that helps."""
    shrink = 1.0 if importance is None else best_shrink(weight, grid, importance=importance)
    return scales_of(weight, grid, shrink=shrink)


def rounded_with_feedback(weight: Tensor, grid: Grid, feedback: Feedback, importance: Tensor) -> StoredWeight:
    """The weight on its grid, the grid's ends drawn in for `importance` [columns]."""
    scales, zeros = grid_scales(weight, grid, importance)
    return stored(round_with_feedback(weight, scales, zeros, grid, feedback), scales, zeros, grid)


class _Line:
    """Columns on their way to codes, one after another; `errors` [columns, rows], what each was rounded by."""

    def __init__(self, wanted: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid, group: list[int]) -> None:
        self.errors = torch.empty_like(wanted)
        self._wanted = wanted
        self._steps = scales.float().t().contiguous()  # [groups, rows]
        self._offsets = None if zeros is None else zeros.float().t().contiguous()
        self._half = 1 << (grid.bits - 1)
        self._group = group

    def round(self, columns: range, aimed: Tensor, unit: Tensor, rounded: Tensor) -> None:
        """Rounds `columns`, the last first, from `aimed` [columns, rows] to whole numbers in `rounded`; each one's
        error goes into those still to come."""
        for column in reversed(columns):
            place, group = column - columns.start, self._group[column]
            step, code = self._steps[group], rounded[place]
            torch.div(aimed[place], step, out=code)
            if self._offsets is not None:
                code += self._offsets[group]
            code.round_().clamp_(-self._half, self._half - 1)
            level = code if self._offsets is None else code - self._offsets[group]
            error = torch.addcmul(self._wanted[column], level, step, value=-1, out=self.errors[column])
            if place:
                aimed[:place].addr_(unit[column, columns.start : column], error)
