"""The joined trade-off: one row a variant, and which one is recommended, in data."""

from dataclasses import dataclass, field
from typing import ClassVar

from qtool.records.calibration import Calibration
from qtool.records.evaluation import Evaluation, VerdictName
from qtool.records.latency import LatencyProfile
from qtool.records.plan import Budget
from qtool.records.presentation import Presented
from qtool.records.variant import Variant


@dataclass(frozen=True, slots=True)
class ReportRow:
    """Everything known of one variant; `overall` is the ship rule's verdict, None for the baseline.

    Ratios are against the baseline: `bytes_ratio` below 1 is smaller, `speedup` above 1 is faster (median end-to-end
    time at the lowest concurrency). `on_front` marks the Pareto set over accuracy, latency and memory.
    """

    variant: Variant
    evaluations: tuple[Evaluation, ...]
    latency: LatencyProfile | None
    overall: VerdictName | None
    bytes_ratio: float
    speedup: float | None
    on_front: bool
    rejected_because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The variant to ship, or None, and the reason in one or two plain sentences."""

    variant: str | None
    runner_up: str | None
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class Report(Presented):
    """The record `report.json`; report.md and report.html are rendered from it alone.

    `critical_tasks` are those that `overall` joins; `notes` say what the run folder lacked or what to read with care.
    """

    SHOWN: ClassVar[tuple[str, ...]] = ("run", "baseline", "recommendation.variant")

    format_version: int
    run: str
    command: str
    baseline: str
    rows: tuple[ReportRow, ...]
    recommendation: Recommendation
    calibration: Calibration | None
    qtool_version: str
    critical_tasks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
