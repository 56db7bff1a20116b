"""Whether one stored scale is enough for a layer's 8-bit input, or massive activations spoil it for all others."""

from collections.abc import Sequence

from torch import Tensor

from qtool.quantize.rounding.activations import round_input
from qtool.quantize.rounding.held_out import importance_of

_FACTOR = 4.0  # times the error that a scale for each token leaves: one bit of the eight
# of a token's output energy. SmolLM2-135M: down lies above it in all blocks but one, and as high as 0.99 where a token
# is 2,000 times another; q, k, o, gate and up below it in most
_HARMLESS = 4e-3


def spoilt_by(inputs: Tensor, weights: Sequence[Tensor], scale: Tensor, *, float8: bool) -> float | None:
    """How many times the error of a scale for each token the stored `scale` [1] leaves in the outputs of the layer that
    suffers most, where that is so much that the input must not be static; else None. `inputs` is float32 [tokens,
    columns], `weights` [rows, columns] those of all layers that read it; tokens count by their relative errors."""
    if not len(inputs):
        return None
    static, dynamic = (round_input(inputs, float8=float8, scale=known) - inputs for known in (scale.to(inputs), None))
    worst = 0.0
    for weight in weights:
        counts = importance_of(inputs @ weight.float().t()) / len(inputs)
        found, least = (float(((off @ weight.float().t()).square() * counts).sum()) for off in (static, dynamic))
        if found > max(_FACTOR * least, _HARMLESS):
            worst = max(worst, found / max(least, 1e-12))
    return worst or None
