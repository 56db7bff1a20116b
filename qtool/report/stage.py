"""`report`: joins what a run folder holds into one record, and renders it for programs, people and browsers."""

from dataclasses import replace
from pathlib import Path

from qtool import __version__
from qtool.records.cost import CostSettings
from qtool.records.evaluation import Evaluation, VerdictName
from qtool.records.latency import LatencyProfile
from qtool.records.plan import Budget
from qtool.records.report import Provenance, Report, ReportRow
from qtool.records.ship_rule import TaskVerdict, overall, verdict_of
from qtool.records.variant import Variant
from qtool.report.choose import on_front, recommend, rejections
from qtool.report.html import page
from qtool.report.join import Joined, critical_tasks, join, tier_in
from qtool.report.markdown import document
from qtool.report.money.cost import costs
from qtool.report.money.prices import read_prices
from qtool.report.texts.numbers import median
from qtool.store import layout
from qtool.store.run_directory import write_record, write_text

FORMAT_VERSION = 1


def report(run: Path, *, command: str) -> Report:
    """The joined trade-off of `run`, also written there as report.html, report.md and, last, report.json.

    `command` stands in the report where the run's lock does not say which one made it.
    """
    joined = join(run)
    result = judge(joined, name=run.resolve().name, command=command)
    write_text(run / layout.REPORT_PAGE, page(result))
    write_text(run / layout.REPORT_TEXT, document(result))
    write_record(run / layout.REPORT, result)
    return result


def judge(joined: Joined, *, name: str, command: str) -> Report:
    """The report of what was `joined`: verdicts, the front, the reasons and the recommendation."""
    critical = critical_tasks(joined)
    budget = joined.plan.budget if joined.plan else Budget()
    rows = [_row(variant, joined, critical) for variant in joined.variants]
    rows = [replace(row, on_front=kept) for row, kept in zip(rows, on_front(rows, critical), strict=True)]
    rows = [replace(row, rejected_because=rejections(row, critical, budget)) for row in rows]
    lock = joined.lock
    result = Report(
        format_version=FORMAT_VERSION,
        run=name,
        command=lock.command if lock is not None else command,
        baseline=joined.baseline.name,
        rows=tuple(rows),
        recommendation=recommend(rows, critical),
        calibration=joined.calibration,
        qtool_version=__version__,
        critical_tasks=critical,
        notes=joined.notes,
        budget=budget,
        plan=joined.plan,
        provenance=None if lock is None else Provenance(lock.command, lock.started, lock.hardware, lock.versions),
        flips=joined.flips,
        sensitivities=joined.sensitivities,
    )
    settings = joined.plan.cost if joined.plan else CostSettings()
    return replace(result, costs=costs(result, settings, read_prices()))


def _row(variant: Variant, joined: Joined, critical: tuple[str, ...]) -> ReportRow:
    baseline = joined.baseline
    evaluations = joined.evaluations[variant.name]
    profile = joined.latency.get(variant.name)
    return ReportRow(
        variant=variant,
        evaluations=evaluations,
        latency=profile,
        overall=_overall(evaluations, joined) if variant is not baseline else None,
        bytes_ratio=variant.bytes / baseline.bytes,
        speedup=_speedup(joined.latency.get(baseline.name), profile),
        on_front=False,
        rejected_because=(),
    )


def _overall(evaluations: tuple[Evaluation, ...], joined: Joined) -> VerdictName:
    """The ship rule's verdict; a task without an evaluation was not compared."""
    found = {entry.task: verdict_of(entry).verdict for entry in evaluations}
    return overall(TaskVerdict(task, found.get(task), tier_in(joined, task)) for task in joined.tasks)


def _speedup(base: LatencyProfile | None, variant: LatencyProfile | None) -> float | None:
    """Median time of the base over the variant's; None where one is unknown or was simulated."""
    times = [median(profile) for profile in (base, variant)]
    if times[0] is None or times[1] is None or (variant is not None and variant.simulated):
        return None
    before, after = times[0].value_ms, times[1].value_ms
    return before / after if before is not None and after else None
