"""Second moments of what calibration tokens feed a layer, gathered by running the block."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.errors import NumericError
from qtool.quantize.contract import Activations, LayerWork

_STRIP = 512  # rows of the product at a time: leaves out nearly half of it


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """`second` float32 [columns, columns]: the mean over `tokens` tokens of x xᵀ for the input x of one layer; `reach`
    float32 scalar, the largest magnitude among them. `drift` float32 [columns, columns] is the mean of (b - x) xᵀ
    with b the input the unquantized model would have had; for a layer that closes a residual branch `missing` float32
    [rows, columns] is that of m xᵀ with m what the stream after it lacks. Both None where that is not known."""

    second: Tensor
    tokens: int
    reach: Tensor
    drift: Tensor | None = None
    missing: Tensor | None = None


def second_moments(activations: Activations, work: LayerWork, base: list[Tensor] | None = None) -> Moments:
    """The moments of the input of `work`, in the block as it is now, and how far it or the stream it adds to has
    drifted; `base`, the unquantized model's inputs a batch. Raises NumericError on NaN or infinity."""
    gathered = _Gathered(work)
    if base is not None and activations.closes_branch(work):
        activations.visit_missing(work, gathered.add_missing)
    elif base is not None:
        batches = iter(base)
        activations.visit([work], lambda _, inputs: gathered.add_drift(inputs, next(batches)))
    else:
        activations.visit([work], lambda _, inputs: gathered.add(inputs))
    return gathered.moments()


class _Gathered:
    """Sums over tokens that become the moments of one layer's input."""

    def __init__(self, work: LayerWork) -> None:
        self._work = work
        columns, device = work.layer.columns, work.weight().device
        self._second = torch.zeros(columns, columns, device=device)
        self._cross: dict[str, Tensor] = {}
        self._reach = torch.zeros((), device=device)
        self._tokens = 0

    def add(self, inputs: Tensor) -> None:
        self._counted(inputs)

    def add_drift(self, inputs: Tensor, base: Tensor) -> None:
        values = self._counted(inputs)
        self._add_cross("drift", base.float() - values, values)

    def add_missing(self, inputs: Tensor, missing: Tensor) -> None:
        self._add_cross("missing", missing.float(), self._counted(inputs))

    def moments(self) -> Moments:
        count = max(self._tokens, 1)
        second = self._second.tril_().add_(self._second.tril(-1).t())
        cross = {name: total / count for name, total in self._cross.items()}
        return Moments(second.div_(count), self._tokens, self._reach, **cross)

    def _counted(self, inputs: Tensor) -> Tensor:
        values = inputs.float()
        if len(values):
            low, high = values.aminmax()
            reach = torch.maximum(-low, high)
            if not bool(torch.isfinite(reach)):  # the one pass for both: NaN and infinity come through
                refuse_nonfinite(self._work.name, values)
            self._reach = torch.maximum(self._reach, reach)
        _add_products(self._second, values)
        self._tokens += len(values)
        return values

    def _add_cross(self, name: str, left: Tensor, right: Tensor) -> None:
        if name not in self._cross:
            self._cross[name] = torch.zeros(left.shape[1], right.shape[1], device=right.device)
        self._cross[name].addmm_(left.t(), right)


def refuse_nonfinite(layer: str, inputs: Tensor) -> None:
    """Raises NumericError where the inputs of `layer` hold NaN or infinity."""
    wrong = int((~torch.isfinite(inputs)).sum())
    if wrong:
        raise NumericError(f"{layer}: {wrong} of its input values are NaN or infinite on calibration tokens")


def _add_products(total: Tensor, values: Tensor) -> None:
    """Adds valuesᵀ values to `total`, of which only the lower half is kept: the upper is the same."""
    for start in range(0, len(total), _STRIP):
        end = min(start + _STRIP, len(total))
        total[start:end, :end].addmm_(values[:, start:end].t(), values[:, :end])


def inputs_of(activations: Activations, work: LayerWork, *, held_out: bool, limit: int) -> Tensor:
    """Up to `limit` tokens of the input of `work`, evenly taken from all batches: float32 [tokens, columns]."""
    seen: list[Tensor] = []
    activations.visit([work], lambda _, inputs: seen.append(inputs.float()), held_out=held_out)
    if not seen:
        return torch.zeros(0, work.layer.columns)
    everything = torch.cat(seen)
    stride = max(1, -(-len(everything) // limit))
    return everything[::stride]


def sharing_inputs(layers: Sequence[LayerWork]) -> list[list[LayerWork]]:
    """`layers` in their order, those that read one input (q, k and v; gate and up) together."""
    groups: dict[str, list[LayerWork]] = {}
    for work in layers:
        groups.setdefault(work.layer.fused_group[0] if work.layer.fused_group else work.name, []).append(work)
    return list(groups.values())
