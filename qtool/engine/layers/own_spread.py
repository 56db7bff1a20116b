"""How far a model's own forward lies from itself when the same sums are taken in another order.

What another way of computing the same logits may differ by cannot be known from the number type alone: inputs that are
rounded to 8 bits, or massive activations in bfloat16, turn one last bit into a whole step. So the model is asked.
"""

from typing import Any

import torch
from torch import Tensor

from qtool.engine.layers.own_forward import feed, use_attention, whole_pass

_LAST_TOKENS = 3  # are fed one by one, as in decoding: products of a single row are taken in another order


@torch.inference_mode()
def own_spread(model: Any, ids: Tensor, expected: Tensor, *, fused: bool) -> float:
    """Greatest relative distance from `expected` [tokens, vocabulary], the logits of one pass over `ids` with eager
    attention, to those of the fused attention (where it computes the same: `fused`) and of tokens fed one by one."""
    use_attention(model, "eager")
    found = [_one_by_one(model, ids)]
    wanted = [expected[-_LAST_TOKENS:]]
    if fused:
        use_attention(model, "sdpa")
        found.append(whole_pass(model, ids[None])[0].float())
        wanted.append(expected)
    return max(distance(*pair) for pair in zip(found, wanted, strict=True))


def distance(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of `wanted`, both of what is finite there: a model may be NaN by itself."""
    usable = wanted.isfinite()
    return float((found - wanted)[usable].norm() / wanted[usable].norm().clamp(min=1e-6))


def _one_by_one(model: Any, ids: Tensor) -> Tensor:
    """Logits of the last tokens, each fed alone behind a cache of those before it."""
    _, cache = feed(model, ids[None, :-_LAST_TOKENS], None)
    rows = []
    for place in range(len(ids) - _LAST_TOKENS, len(ids)):
        logits, cache = feed(model, ids[None, place : place + 1], cache)
        rows.append(logits[0])
    return torch.cat(rows).float()
