"""Whether two ways of computing a model's logits agree, as far as the arithmetic lets them.

Like is compared with like: one whole pass with another whole pass over the same tokens. Where they prefer different
tokens, the lead of one over the other must be more than rounding explains before it is called a difference: in bfloat16
the best two logits are often equal to the last bit, and inputs in 8 bits turn a last bit into a whole step. How much
that is in this model, the reference tells by being computed again: with its other kind of attention, and behind
embeddings of which some were moved a little.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Passes = Callable[[str], Iterable[Tensor]]  # one of WAYS, or "sdpa" -> logits [tokens, vocabulary] of each row

WAYS = ("eager", "nudged")  # another attention; the usual one behind embeddings of which some are a last bit off

_SPREADS = 2  # what one more way of computing may differ by, in times that two of the reference's own do
_STEPS = 4  # roundings to the number type that stay visible in a logit
_SUMMED = 64  # roundings of float32 in its sums: the root of a few thousand terms


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding explains: the largest lead of one token over another, and the root mean square of differences."""

    lead: float
    rms: float


@dataclass(frozen=True, slots=True)
class Parting:
    """A place where two ways prefer different tokens: row, index of the token fed there, the reference's choice and the
    other's, and by how much the reference prefers its own."""

    row: int
    place: int
    reference: int
    other: int
    lead: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two ways of computing the logits of all rows: largest, root mean square, and where the choices part."""

    largest: float
    rms: float
    partings: tuple[Parting, ...]


def compare(reference: Sequence[Tensor], other: Sequence[Tensor]) -> Difference:
    """How logits [tokens, vocabulary] of each row differ, place by place."""
    largest, squares, count = 0.0, 0.0, 0
    partings: list[Parting] = []
    for row, (wanted, found) in enumerate(zip(reference, other, strict=True)):
        apart = (found - wanted).abs()
        largest = max(largest, float(apart.max()))
        squares, count = squares + float(apart.double().square().sum()), count + apart.numel()
        partings += partings_of(row, wanted, found.argmax(-1))
    return Difference(largest, math.sqrt(squares / count), tuple(partings))


def partings_of(row: int, logits: Tensor, chosen: Tensor, *, first: int = 0) -> list[Parting]:
    """Where `chosen` [tokens - first] are not the choice of `logits` [tokens, vocabulary] from place `first` on."""
    leads = logits[first:].amax(-1) - logits[first:].gather(-1, chosen[:, None]).squeeze(-1)
    best = logits[first:].argmax(-1)
    return [
        Parting(row, first + place, int(best[place]), int(chosen[place]), float(leads[place]))
        for place in torch.nonzero(leads > 0).flatten().tolist()
    ]


def rounding_of(
    passes: Passes, reference: Sequence[Tensor], dtype: torch.dtype, *, enough: Callable[[Rounding], bool]
) -> Rounding:
    """What rounding explains beside `reference`, computed with fused attention, where what is compared rounds to
    `dtype`: a few steps of the logits' size, and twice what the way changes that changes more. Another way is tried
    only where the ways so far are not `enough`."""
    step = _STEPS * torch.finfo(dtype).eps + _SUMMED * torch.finfo(torch.float32).eps
    largest = max(float(logits.abs().max()) for logits in reference)
    spread = math.sqrt(sum(float(logits.double().square().mean()) for logits in reference) / len(reference))
    explained = Rounding(step * largest, step * spread)
    for way in WAYS:
        own = compare(reference, list(passes(way)))
        own_lead = max((parting.lead for parting in own.partings), default=0.0)
        # of any logit, too: where both ways happen to choose alike, a third, which is off by as much, need not
        lead = step * largest + _SPREADS * max(own_lead, own.largest, math.sqrt(2) * own.rms)
        rms = step * spread + _SPREADS * own.rms
        explained = Rounding(max(explained.lead, lead), max(explained.rms, rms))
        if enough(explained):
            break
    return explained


def worst(partings: Iterable[Parting], rounding: Rounding) -> Parting | None:
    """The parting with the largest lead, if that is more than rounding explains."""
    found = max(partings, key=lambda parting: parting.lead, default=None)
    return found if found is not None and found.lead > rounding.lead else None
