"""Axis arithmetic of the report's drawings: where a value lies."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values low..high to pixels start..end; `bend` is applied first (identity for a linear axis)."""

    low: float
    high: float
    start: float
    end: float
    bend: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """Pixel of `value`, clamped to the axis."""
        low, high = self.bend(self.low), self.bend(self.high)
        share = (self.bend(min(max(value, self.low), self.high)) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)


def share_bend(value: float) -> float:
    """Linear near zero, logarithmic far out: one margin stays readable beside a loss of a hundred margins."""
    return math.asinh(1.5 * value)
