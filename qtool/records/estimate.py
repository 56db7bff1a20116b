"""What a variant will cost, told before it is made."""

from dataclasses import dataclass
from typing import ClassVar

from qtool.records.presentation import Presented


@dataclass(frozen=True, slots=True, repr=False)
class Estimate(Presented):
    """What to expect. `block_seconds` was measured on the first block; the rest follows from it."""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "minutes", "peak_memory_bytes", "disk_bytes")

    name: str
    blocks: int
    block_seconds: float
    minutes: float
    peak_memory_bytes: int
    disk_bytes: int
    samples_bytes: int
