"""How far rounding the weights moves the margins of a model's answers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoundingNoise:
    """`margins` holds (before, after) in nats for each answer token of each item read; `weight_error` is the norm of
    what rounding changed over the weights' own. `why_not` says why nothing was measured."""

    run_digest: str
    weight_error: float = 0.0
    margins: tuple[tuple[tuple[float, float], ...], ...] = ()
    why_not: str = ""
