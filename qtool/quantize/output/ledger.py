"""One row for each linear layer: what was asked, what was done, what it cost, and why where the two differ."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qtool.errors import QuantizationError
from qtool.formats.stored_weights import dequantize
from qtool.models.architecture import ExpertStack, LinearLayer
from qtool.quantize.contract import LayerResult, LayerWork
from qtool.records.variant import LedgerRow, Recipe


def weight_error(weight: Tensor, result: LayerResult) -> float:
    """||W - Q(W)|| / ||W||, Frobenius, a ratio; 0 for a weight that is all zero."""
    norm = float(weight.double().norm())
    difference = float((dequantize(result.weight).to(weight) - weight).double().norm())
    return difference / norm if norm else 0.0


def row_of(
    work: LayerWork,
    result: LayerResult,
    recipe: Recipe,
    *,
    error: float,
    output_error: float | None,
    stored_bytes: int,
) -> LedgerRow:
    """The ledger's row for a layer that a method has finished."""
    return LedgerRow(
        layer=work.name,
        rows=work.layer.rows,
        columns=work.layer.columns,
        scheme_asked=recipe.scheme,
        scheme_used=work.scheme,
        method_asked=recipe.method,
        method_used=result.method,
        group_size=work.grid.group_size,
        weight_error=error,
        clipped_share=result.clipped_share,
        dead_columns=result.dead_columns,
        tokens_seen=result.tokens_seen,
        bytes=stored_bytes,
        output_error=output_error,
        damping=result.damping,
        reason=result.reason,
    )


def kept_row(layer: LinearLayer, recipe: Recipe, *, stored_bytes: int, reason: str) -> LedgerRow:
    """The ledger's row for a layer that stays as it is in the base."""
    return LedgerRow(
        layer=layer.name,
        rows=layer.rows,
        columns=layer.columns,
        scheme_asked=recipe.scheme,
        scheme_used="base",
        method_asked=recipe.method,
        method_used="none",
        group_size=-1,
        weight_error=0.0,
        clipped_share=0.0,
        dead_columns=0,
        tokens_seen=0,
        bytes=stored_bytes,
        reason=reason,
    )


def stack_row(stack: ExpertStack, recipe: Recipe, *, stored_bytes: int) -> LedgerRow:
    """The row for experts in one tensor of three dimensions: asked for, but kept, which counts as a fallback."""
    reason = f"{stack.experts} experts in one tensor, which {recipe.format} cannot hold in fewer bits: kept"
    layer = LinearLayer(stack.name, stack.rows, stack.columns, None)
    return replace(kept_row(layer, recipe, stored_bytes=stored_bytes, reason=reason), method_used="kept")


def is_fallback(row: LedgerRow) -> bool:
    """Whether the layer got another method than was asked, without having been kept on purpose."""
    return row.method_used not in (row.method_asked, "none")


def fallbacks(rows: Iterable[LedgerRow]) -> int:
    """How many layers got another method than was asked."""
    return sum(map(is_fallback, rows))


def enforce(rows: Sequence[LedgerRow], *, strict: float | None) -> None:
    """Raises QuantizationError when more than the share `strict` of the quantized layers fell back."""
    quantized = [row for row in rows if row.method_used != "none"]
    found = [row for row in quantized if is_fallback(row)]
    if strict is None or len(found) <= strict * len(quantized):
        return
    raise QuantizationError(
        f"{len(found)} of {len(quantized)} layers fell back from {found[0].method_asked!r} "
        f"(allowed share: {strict:g}); first {found[0].layer}: {found[0].reason}"
    )


class OutputError:
    """Relative error of a layer's output, summed over batches of held-out inputs."""

    def __init__(self) -> None:
        self._error = 0.0
        self._norm = 0.0

    def add(self, inputs: Tensor, served_inputs: Tensor, weight: Tensor, served: Tensor) -> None:
        """Compares `inputs` times `weight` with `served_inputs` times the weight that will be served."""
        expected = inputs.float() @ weight.float().t()
        found = served_inputs.float() @ served.float().t()
        self._error += float((found - expected).double().square().sum())
        self._norm += float(expected.double().square().sum())

    def ratio(self) -> float | None:
        """||difference|| / ||output||, or None where nothing was seen."""
        return (self._error / self._norm) ** 0.5 if self._norm else None


def nonfinite(weight: Tensor) -> int:
    """How many entries of `weight` are NaN or infinite."""
    return int((~torch.isfinite(weight)).sum())
