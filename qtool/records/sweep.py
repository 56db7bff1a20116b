"""What a sweep over observers finds: every observer on every task, and the layers that hurt where one does."""

from dataclasses import dataclass
from typing import ClassVar

from qtool.records.evaluation import Interval, Score, VerdictName
from qtool.records.presentation import Presented


@dataclass(frozen=True, slots=True)
class SweepCell:
    """One observer on one task: score, paired difference to the baseline as fractions, and the ship test's verdict."""

    task: str
    score: Score
    difference: float
    interval: Interval
    verdict: VerdictName


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One way to choose ranges. `clipped_energy` is the most of any input's held-out energy it cuts off, in `input`.

    `dynamic` rows take the range of each token while running; `calibrated` is False for a range set by hand.
    """

    observer: str
    dynamic: bool
    calibrated: bool
    clipped_energy: float | None
    input: str
    cells: tuple[SweepCell, ...]


@dataclass(frozen=True, slots=True)
class LayerBlame:
    """What it gives back to leave `layers` unquantized: the `difference` on the task becomes `without`."""

    observer: str
    task: str
    layers: tuple[str, ...]
    difference: float
    without: float
    interval: Interval


@dataclass(frozen=True, slots=True, repr=False)
class Sweep(Presented):
    """The manifest `sweep.json`: baseline scores by task, a row an observer, and the blame."""

    SHOWN: ClassVar[tuple[str, ...]] = ("model", "scheme", "set_name")

    format_version: int
    model: str
    scheme: str
    set_name: str
    sequences: int
    baseline: tuple[tuple[str, Score], ...]
    rows: tuple[SweepRow, ...]
    blame: tuple[LayerBlame, ...]
    qtool_version: str
