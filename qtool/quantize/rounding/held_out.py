"""What a layer's held-out inputs say about a choice: rows that no method has learnt from, judged token by token.

Half of the judgement is the relative error of each token, half that of all together: a few tokens with massive
activations must not decide for all, but all others attend to them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from qtool.quantize.contract import Activations, LayerWork

_MOST_TOKENS = 1024
_FLOOR = 0.1  # of the median output's energy: tokens whose output is nearly nothing must not decide either


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Up to 1,024 held-out inputs of layers that read one input, float32 [tokens, columns], and what their outputs lack
    of the unquantized model's: `lacks` [tokens, columns] as an input that is missing, or `missing` [tokens, rows]; both
    None where that is not known."""

    inputs: Tensor
    lacks: Tensor | None = None
    missing: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def wanted(self, weight: Tensor) -> Tensor | None:
        """What the outputs of `weight` [rows, columns] lack: [tokens, rows]; None where nothing is known of it."""
        if self.missing is not None:
            return self.missing
        return None if self.lacks is None else self.lacks @ weight.t()

    def importance(self, weight: Tensor) -> Tensor:
        """How much each token's squared error counts: [tokens, 1]."""
        return balanced_importance(self.inputs @ weight.t())

    def error(self, weight: Tensor, candidate: Tensor) -> float:
        """Squared error of the outputs of `candidate` against what `weight` and the unquantized model would give."""
        difference = self.inputs @ (candidate - weight).t()
        wanted = self.wanted(weight)
        if wanted is not None:
            difference = difference - wanted
        return float((difference.square() * self.importance(weight)).sum())

    def best_share(self, weight: Tensor, move: Tensor, largest: float) -> float:
        """How much of `move` [rows, columns] brings the outputs closest, from 0 to `largest`."""
        wanted = self.wanted(weight)
        if wanted is None or not len(self):
            return 0.0
        moved, counts = self.inputs @ move.t(), self.importance(weight)
        energy = float((moved.square() * counts).sum())
        share = float((moved * wanted * counts).sum()) / energy if energy else 0.0
        return min(max(share, 0.0), largest)


def importance_of(outputs: Tensor) -> Tensor:
    """How much each token's squared error counts beside outputs [tokens, rows]: [tokens, 1]."""
    energy = outputs.square().sum(1, keepdim=True)
    if not len(energy):
        return energy
    return 1.0 / energy.clamp(min=max(float(energy.median()) * _FLOOR, torch.finfo(torch.float32).tiny))


def balanced_importance(outputs: Tensor) -> Tensor:
    """As `importance_of`, plus what makes the error of all tokens together count as much: a token with massive
    activations is often the one that all others attend to."""
    total = float(outputs.square().sum())
    return importance_of(outputs) + (len(outputs) / total if total else 0.0)


def held_out_of(activations: Activations, work: LayerWork, base: list[Tensor] | None) -> HeldOut:
    """The held-out inputs of `work` in the block as it is now; `base` are the unquantized model's, a batch, where they
    are known. A layer that closes a residual branch must have been asked for its moments before."""
    inputs: list[Tensor] = []
    others: list[Tensor] = []

    def taken(values: Tensor) -> Tensor:
        return values[:: max(1, len(values) // _MOST_TOKENS)].float()

    if base is not None and activations.closes_branch(work):

        def missing(values: Tensor, lacking: Tensor) -> None:
            inputs.append(taken(values))
            others.append(taken(lacking))

        activations.visit_missing(work, missing, held_out=True)
    else:
        activations.visit([work], lambda _, values: inputs.append(taken(values)), held_out=True)
    if not inputs:
        return HeldOut(torch.zeros(0, work.layer.columns, device=work.weight().device))
    everything = _even(inputs)
    if others:
        return HeldOut(everything, missing=_even(others))
    if base is None or work.layer.experts:
        return HeldOut(everything)
    return HeldOut(everything, lacks=_even([taken(values) for values in base]) - everything)


def _even(batches: list[Tensor]) -> Tensor:
    everything = torch.cat(batches)
    return everything[:: max(1, -(-len(everything) // _MOST_TOKENS))]
