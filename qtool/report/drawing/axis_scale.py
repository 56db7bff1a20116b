"""Axis arithmetic of the report's drawings: where a value lies, and which round values to label."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

_ROUND_SHARES = (-1000, -500, -200, -100, -50, -20, -10, -5, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50)


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


def share_ticks(axis: Axis, *, apart: float) -> list[float]:
    """Round shares of a margin on `axis`, 0 and −1 first, each at least `apart` pixels from the others."""
    chosen: list[float] = []
    for value in sorted(_ROUND_SHARES, key=lambda share: (share not in (0, -1), abs(share))):
        inside = axis.low <= value <= axis.high
        if inside and all(abs(axis.at(value) - axis.at(other)) >= apart for other in chosen):
            chosen.append(value)
    return sorted(chosen)


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round values within low..high, at a step of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def padded(values: list[float]) -> tuple[float, float]:
    """A range for `values` (all ≥ 0): from zero unless they are close together, with some air at both ends."""
    low, high = min(values), max(values)
    if high <= sys.float_info.min:  # smaller still, and shares of it are zero
        return 0.0, 1.0
    if low < 0.6 * high:
        return 0.0, high * 1.12
    air = max(high - low, 0.1 * high) * 0.35
    return max(low - air, 0.0), high + air
