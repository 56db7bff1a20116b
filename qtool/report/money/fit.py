"""How many instances fit on a card: weights, and the cache that a context and a load need."""

from dataclasses import dataclass

from qtool.records.latency import LatencyProfile

USABLE = 0.9  # of a card: the rest is the driver's, and what an allocator cannot use
CARDS_GB = (16, 24, 80)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that one instance holds on its device: `exact` where a card's own peak was measured."""

    bytes: int
    exact: bool


def footprint(profile: LatencyProfile) -> Footprint:
    """What one instance of a timed variant holds at the highest load that was timed."""
    held = profile.weight_bytes + profile.cache_bytes
    if profile.peak_gpu_bytes:
        return Footprint(max(profile.peak_gpu_bytes, held), True)
    return Footprint(held, False)


def instances(profile: LatencyProfile, card_bytes: float) -> int:
    """How many fit beside each other on a card of `card_bytes`."""
    each = footprint(profile).bytes
    return int(card_bytes * USABLE // each) if each else 0
