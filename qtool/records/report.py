"""The joined trade-off: one row a variant, and which one is recommended, in data."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from qtool.records.calibration import Calibration
from qtool.records.cost import Costs
from qtool.records.evaluation import Evaluation, VerdictName
from qtool.records.latency import LatencyProfile
from qtool.records.plan import Budget, Plan
from qtool.records.presentation import Presented
from qtool.records.sensitivity import Sensitivity
from qtool.records.variant import Variant

FlipKind = Literal["harmful", "beneficial", "wrong to other wrong"]


@dataclass(frozen=True, slots=True)
class FlippedItem:
    """One item of `task` whose answer differs between the baseline and `variant`, as the report shows it.

    `token` counts from 0 where the two answers first differ; the leads (nats) are those by which each model preferred
    its own token there, None where it had already stopped. Long texts are cut.
    """

    variant: str
    task: str
    id: str
    kind: FlipKind
    prompt: str
    target: str
    baseline_output: str
    variant_output: str
    token: int | None
    baseline_lead: float | None
    variant_lead: float | None
    slices: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the run was made with: the command that was typed, when it began (UTC), the machine, and versions."""

    command: str
    started: str
    hardware: str
    versions: tuple[tuple[str, str], ...]


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
    `command` is the one that made the run, where its lock says so. `flips` are the first of each variant and task, the
    harmful ones before the others; `churn` of the evaluations counts them all.
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
    plan: Plan | None = None
    provenance: Provenance | None = None
    flips: tuple[FlippedItem, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    costs: Costs | None = None
