"""`qtool.report`, `report_diff`, `plot` and `schema`: what a run says, as records, files and pictures."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtool.front_door.paths import PathLike
from qtool.records.report import Report

if TYPE_CHECKING:
    from qtool.report.difference import ReportDifference
    from qtool.report.plots.plot import Plot


def report(run: PathLike) -> Report:
    """Joins verdicts, latency and size of a run; writes report.json, report.md and report.html into it."""
    import shlex

    from qtool.report.stage import report as write

    return write(Path(run), command=shlex.join(["qtool", "report", str(run)]))


def without_samples(report: Report) -> Report:
    """A report without what makes it long: the rows of each ledger, the curves of the certificate, single answers."""
    rows = tuple(replace(row, variant=replace(row.variant, layers=())) for row in report.rows)
    found = report.calibration
    if found is not None:
        certificate = found.certificate and replace(found.certificate, layers=())
        found = replace(found, ranges=(), certificate=certificate)
    return replace(report, rows=rows, calibration=found, flips=(), sensitivities=())


def report_diff(before: PathLike, after: PathLike) -> "ReportDifference":
    """What changed from one run to another of the same base. Raises MismatchError where the bases differ."""
    from qtool.report.difference import difference

    return difference(_judged(Path(before)), _judged(Path(after)))


def plot(run: PathLike, *, output: PathLike, kind: str = "tradeoff") -> "Plot":
    """Draws one plot of a run's report into the file `output` (.svg or .png). Raises UsageError where the run has no
    numbers for it."""
    from qtool.errors import UnknownName, UsageError
    from qtool.report.plots import drawn
    from qtool.report.plots.kinds import KINDS
    from qtool.store.run_directory import explained

    target = Path(output)
    if kind not in KINDS:
        raise UnknownName("plot", kind, KINDS)
    if target.suffix not in (".svg", ".png"):
        raise UsageError(f"{target}: plots are written as .svg or .png; give the file one of these endings")
    drawn.refuse_missing()
    found = KINDS[kind](_judged(Path(run)))
    if found is None:
        raise UsageError(f"{run}: has no numbers for a plot of {kind}; `qtool report {run}` says what is missing")
    with explained(target):
        if target.suffix == ".svg":
            target.write_text(drawn.svg(found), encoding="utf-8")
        else:
            target.write_bytes(drawn.png(found))
    return found


def schema(name: str) -> dict[str, Any]:
    """JSON Schema of "report" (report.json) or "plan" (plan.toml)."""
    from qtool.errors import UnknownName
    from qtool.pipeline.plan import PlanFile
    from qtool.store.schema import schema_of

    records: dict[str, tuple[type, str]] = {
        "report": (Report, "report.json of qtool"),
        "plan": (PlanFile, "qtool plan"),
    }
    if name not in records:
        raise UnknownName("schema", name, records)
    record, title = records[name]
    return schema_of(record, title=title)


def _judged(run: Path) -> Report:
    """The report of a run as its folder is now; nothing is written."""
    from qtool.report.join import join
    from qtool.report.stage import judge

    return judge(join(run), name=run.resolve().name, command=f"qtool report {run}")
