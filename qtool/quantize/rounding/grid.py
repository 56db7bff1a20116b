"""Scales, zero points and rounding: a float weight to codes on a grid, and how far a grid's ends are drawn in."""

import torch
from torch import Tensor

from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.quantize.contract import Grid

FLOAT8_MAX = 448.0
_SHRINKS = tuple(1 - step / 20 for step in range(13))  # ranges tried: the whole one, down to 0.4 of it
_CHUNK_VALUES = 1 << 17  # weights looked at together: few enough for the caches, enough for two threads and more


def group_count(grid: Grid, columns: int) -> int:
    """How many scales a row of `columns` has."""
    return 1 if grid.group_size == -1 else columns // grid.group_size


def scales_of(weight: Tensor, grid: Grid, *, shrink: Tensor | float = 1.0) -> tuple[Tensor, Tensor | None]:
    """Scales [rows, groups] in the grid's scale type, and zero points int8 of an asymmetric grid, for a weight
    [rows, columns]; `shrink` [rows, groups] below 1 draws the ends of the grid in.

    Scales follow compressed-tensors: the symmetric grid spans 2 * absmax in 2^bits - 1 steps; zero becomes eps.
    """
    grouped = _grouped(weight, grid)
    if grid.kind == "float8":
        return _stored_scale(grouped.abs().amax(-1) * shrink / FLOAT8_MAX, grid), None
    steps = (1 << grid.bits) - 1
    if grid.symmetric:
        return _stored_scale(grouped.abs().amax(-1) * shrink * 2 / steps, grid), None
    low = grouped.amin(-1).clamp(max=0) * shrink
    high = grouped.amax(-1).clamp(min=0) * shrink
    scales = _stored_scale((high - low) / steps, grid)
    lowest = -(1 << (grid.bits - 1))
    zeros = (lowest - low / scales.float()).round().clamp(lowest, -lowest - 1)
    return scales, zeros.to(torch.int8)


def to_codes(weight: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> Tensor:
    """Nearest codes [rows, columns] of a float32 weight: int8, or float8_e4m3fn."""
    scaled = _grouped(weight, grid) / scales.float()[..., None]
    if grid.kind == "float8":
        return scaled.clamp(-FLOAT8_MAX, FLOAT8_MAX).flatten(1).to(torch.float8_e4m3fn)
    if zeros is not None:
        scaled = scaled + zeros.float()[..., None]
    half = 1 << (grid.bits - 1)
    return scaled.round().clamp(-half, half - 1).flatten(1).to(torch.int8)


def round_to_grid(weight: Tensor, grid: Grid, *, shrink: Tensor | float = 1.0) -> StoredWeight:
    """`weight` float32 [rows, columns], each number rounded to the nearest of its grid."""
    scales, zeros = scales_of(weight, grid, shrink=shrink)
    return stored(to_codes(weight, scales, zeros, grid), scales, zeros, grid)


def stored(codes: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> StoredWeight:
    """Codes and scales as the weight that will be stored."""
    return StoredWeight(codes=codes, scales=scales, zeros=zeros, bits=grid.bits, group_size=grid.group_size)


def best_shrink(weight: Tensor, grid: Grid, *, importance: Tensor | None = None) -> Tensor:
    """How far to draw in the ends of each group's grid, [rows, groups], so that the squared rounding error is least;
    `importance` [columns] weighs the columns, for example by the second moment of their inputs."""
    rows, columns = weight.shape
    groups = group_count(grid, columns)
    if importance is None:
        importance = torch.ones(columns, device=weight.device)
    best = torch.empty(rows, groups, device=weight.device)
    search = _refitted_shrink if grid.kind == "int" and grid.symmetric else _tried_shrink
    chunk = max(1, _CHUNK_VALUES // columns)
    for start in range(0, rows, chunk):
        best[start : start + chunk] = search(weight[start : start + chunk], grid, importance)
    return best


def _refitted_shrink(weight: Tensor, grid: Grid, importance: Tensor) -> Tensor:
    """For each shorter range the scale is refitted to the codes it gives, by least squares; the best of all wins."""
    grouped = _grouped(weight, grid)
    root = importance.sqrt().reshape(1, grouped.shape[1], grouped.shape[2])
    half, tiny = 1 << (grid.bits - 1), torch.finfo(torch.float32).tiny
    steps = grouped / (grouped.abs().amax(-1, keepdim=True).clamp_(min=tiny) * 2 / (2 * half - 1))
    target = steps * root
    codes, product = torch.empty_like(steps), torch.empty_like(steps)
    fits = torch.empty(len(_SHRINKS), *steps.shape[:2], device=weight.device)
    norms = torch.empty_like(fits)
    for shrink, fit, norm in zip(_SHRINKS, fits, norms, strict=True):  # all in place: this is most of the time
        torch.mul(steps, 1 / shrink, out=codes).round_().clamp_(-half, half - 1).mul_(root)
        torch.sum(torch.mul(codes, target, out=product), -1, out=fit)
        torch.linalg.vector_norm(codes, dim=-1, out=norm)
    norms.clamp_(min=tiny**0.5)
    explained = torch.where(fits > 0, fits / norms, 0)  # its square is what is taken off the squared error
    best = explained.argmax(0, keepdim=True)  # the first of equals: the longest range
    scale = (fits.gather(0, best) / norms.gather(0, best).square()).squeeze(0)
    return torch.where(explained.amax(0) > 0, scale, 1)


def _tried_shrink(weight: Tensor, grid: Grid, importance: Tensor) -> Tensor:
    best = torch.ones(weight.shape[0], group_count(grid, weight.shape[1]), device=weight.device)
    least = torch.full_like(best, torch.inf)
    for shrink in _SHRINKS:
        error = (dequantize(round_to_grid(weight, grid, shrink=shrink)).float() - weight).square() * importance
        total = _grouped(error, grid).sum(-1)
        better = total < least
        least = torch.where(better, total, least)
        best = torch.where(better, torch.full_like(best, shrink), best)
    return best


def clipped_share(weight: Tensor, scales: Tensor, zeros: Tensor | None, grid: Grid) -> float:
    """Share of the weights more than half a step beyond the ends of their grid."""
    scaled = _grouped(weight, grid) / scales.float()[..., None]
    if grid.kind == "float8":
        return float((scaled.abs() > FLOAT8_MAX * (1 + 2**-5)).double().mean())
    if zeros is not None:
        scaled = scaled + zeros.float()[..., None]
    half = 1 << (grid.bits - 1)
    slack = 0.5 + 2**-6 * half  # rounding the scale to 16 bits moves the ends a little; that is no clipping
    return float(((scaled < -half - slack) | (scaled > half - 1 + slack)).double().mean())


def _grouped(weight: Tensor, grid: Grid) -> Tensor:
    rows, columns = weight.shape
    return weight.reshape(rows, group_count(grid, columns), -1)


def _stored_scale(scales: Tensor, grid: Grid) -> Tensor:
    limits = torch.finfo(grid.scale_dtype)
    rounded = scales.clamp(max=limits.max).to(grid.scale_dtype)
    for_zero = torch.where(scales == 0, limits.eps, limits.tiny).to(grid.scale_dtype)  # tiny: underflow in 16 bits
    return torch.where(rounded == 0, for_zero, rounded)
