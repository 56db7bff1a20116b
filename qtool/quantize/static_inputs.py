"""Whether one stored scale is enough for a layer's 8-bit input, or massive activations spoil it for all others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from qtool.quantize.activations import round_input
from qtool.quantize.held_out import importance_of

_FACTOR = 4.0  # times the error that a scale for each token leaves: one bit of the eight
# of a token's output energy. SmolLM2-135M: q, k, v, o, gate and up lie below it in nearly every block, down above it in
# most and as high as 0.99, where one token is 2,000 times another
_HARMLESS = 4e-3


def spoilt_by(inputs: Tensor, weights: Sequence[Tensor], scale: Tensor, *, float8: bool) -> tuple[float, float] | None:
    """Relative squared errors of the outputs, a token on average, with the stored `scale` [1] and with a scale for each
    token, where the first is so much larger that the input must not be static; else None. `inputs` is float32 [tokens,
    columns], `weights` [rows, columns] those of all layers that read it."""
    if not len(inputs):
        return None
    weight = torch.cat([each.float() for each in weights])
    outputs = inputs @ weight.t()
    counts = importance_of(outputs) / len(inputs)
    static, dynamic = (
        float(((round_input(inputs, float8=float8, scale=known) @ weight.t() - outputs).square() * counts).sum())
        for known in (scale.to(inputs), None)
    )
    return (static, dynamic) if static > max(_FACTOR * dynamic, _HARMLESS) else None
