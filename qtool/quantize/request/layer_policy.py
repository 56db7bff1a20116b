"""Which layers to keep in more bits: the cheapest set for a budget in bytes, or ever more of them until one passes.

Each unit that is lifted costs bytes and takes back the KL it alone adds; what takes back most a byte comes first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qtool.errors import QuantizationError
from qtool.records.sensitivity import Sensitivity, UnitSensitivity

Overrides = tuple[tuple[str, str], ...]

_EIGHT_BITS = "w8a16"
_LEFT_AT_EIGHT_BITS = 1 / 200  # of the KL at 4 bits: 16 times finer steps, errors squared


@dataclass(frozen=True, slots=True)
class Lift:
    """Giving one unit more bits: what it costs, and how much KL it is expected to take back."""

    unit: int
    scheme: str
    extra_bytes: int
    regained: float


def within_budget(
    found: Sensitivity, *, smallest_bytes: int, budget_bytes: int, eight_bits: Mapping[str, int]
) -> Overrides:
    """Layers to lift, with their schemes, so that a variant of `smallest_bytes` grows to at most `budget_bytes`.

    `eight_bits` gives each layer's size in 8 bits; empty where the scheme has 8 already. Raises QuantizationError when
    even the smallest variant is larger than the budget.
    """
    if smallest_bytes > budget_bytes:
        raise QuantizationError(
            f"budget {budget_bytes:,} bytes: the smallest variant by this recipe takes {smallest_bytes:,} bytes"
        )
    chosen: dict[int, Lift] = {}
    left = budget_bytes - smallest_bytes
    for lift in _by_worth(found.units, eight_bits):
        before = chosen.get(lift.unit)
        cost = lift.extra_bytes - (before.extra_bytes if before else 0)
        gain = lift.regained - (before.regained if before else 0.0)
        if gain > 0 and cost <= left:
            chosen[lift.unit] = lift
            left -= cost
    return _overrides(found.units, chosen.values())


def ladder(found: Sensitivity, *, eight_bits: Mapping[str, int]) -> Iterator[Overrides]:
    """Ever larger sets of layers to lift, the most worth it first: what `until = "pass"` tries one after the other."""
    chosen: dict[int, Lift] = {}
    for lift in _by_worth(found.units, eight_bits):
        before = chosen.get(lift.unit)
        if before is None or lift.regained > before.regained:
            chosen[lift.unit] = lift
            yield _overrides(found.units, chosen.values())


def _by_worth(units: Sequence[UnitSensitivity], eight_bits: Mapping[str, int]) -> list[Lift]:
    lifts = []
    for index, unit in enumerate(units):
        lifts.append(Lift(index, "base", unit.base_bytes - unit.bytes, unit.kl_alone))
        if all(layer in eight_bits for layer in unit.layers):
            size = sum(eight_bits[layer] for layer in unit.layers)
            lifts.append(Lift(index, _EIGHT_BITS, size - unit.bytes, unit.kl_alone * (1 - _LEFT_AT_EIGHT_BITS)))
    useful = [lift for lift in lifts if lift.extra_bytes > 0]
    return sorted(useful, key=lambda lift: (-lift.regained / lift.extra_bytes, lift.unit, lift.scheme))


def _overrides(units: Sequence[UnitSensitivity], lifts: Iterable[Lift]) -> Overrides:
    chosen = sorted(lifts, key=lambda lift: lift.unit)
    return tuple((layer, lift.scheme) for lift in chosen for layer in units[lift.unit].layers)
