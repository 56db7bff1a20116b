"""Which variant goes into the bundle, and in one sentence why."""

from pathlib import Path

from qtool.errors import MismatchError, StoreError, UnknownName, UsageError
from qtool.progress import Progress
from qtool.records.evaluation import Evaluation, VerdictName
from qtool.records.report import Report, ReportRow
from qtool.records.ship_rule import verdict_of_bounds
from qtool.records.variant import Variant
from qtool.report.join import join
from qtool.report.stage import judge
from qtool.report.unchanged import changed_part
from qtool.store import layout
from qtool.store.codec import read_json


def read_report(run: Path) -> Report:
    """The report of `run`. Raises StoreError saying how to get one."""
    if not run.is_dir():
        raise StoreError(f"{run}: no such folder; give the folder that `qtool run` wrote")
    if not (run / layout.REPORT).is_file():
        raise StoreError(f"{run}: has no report; write it with: qtool report {run}")
    return read_json(Report, run / layout.REPORT)


def judged_anew(run: Path, progress: Progress) -> Report:
    """The report of `run` as its evaluations give it now: what report.json says is read, told of where it differs, and
    otherwise not believed. Raises MismatchError where an evaluation was edited."""
    stored = read_report(run)
    joined = join(run)
    for variant in joined.variants:
        for evaluation in joined.evaluations[variant.name]:
            _check_evaluation(run, variant, evaluation)
    fresh = judge(joined, name=run.resolve().name, command=stored.command)
    if fresh != stored:
        progress.note(f"{run / layout.REPORT}: is not what the evaluations say, and is not used")
    return fresh


def _check_evaluation(run: Path, variant: Variant, evaluation: Evaluation) -> None:
    where = f"{run}: {evaluation.task} of {variant.name}"
    compared = evaluation.comparison
    if compared is not None and _better(compared.verdict, verdict_of_bounds(compared.interval, compared.margin)):
        raise MismatchError(f"{where} says {compared.verdict}, which is not what its numbers give; evaluate it again")


def _better(verdict: VerdictName, than: VerdictName) -> bool:
    order: tuple[VerdictName, ...] = ("FAIL", "UNDECIDED", "PASS")
    return order.index(verdict) > order.index(than)


def choose(report: Report, variant: str | None) -> tuple[ReportRow, str]:
    """The row of the variant to bundle and why it is that one.

    Raises UsageError where nothing is recommended and nothing was named, UnknownName for a name not in the report.
    """
    recommended = report.recommendation.variant
    if variant is None and recommended is None:
        names = ", ".join(row.variant.name for row in report.rows)
        raise UsageError(
            f"the report recommends no variant: {report.recommendation.reason} "
            f"To bundle one all the same, name it with --variant (it is recorded); there are: {names}"
        )
    rows = {row.variant.name: row for row in report.rows}
    name = variant or recommended
    if name not in rows:
        raise UnknownName("variant", str(name), rows)
    row = rows[name]
    if name == recommended:
        return row, f"recommended: {report.recommendation.reason}"
    against = "; ".join(row.rejected_because) or f"the report recommends {recommended or 'none'}"
    return row, f"named with --variant, not recommended: {against}"


def check_unchanged(folder: Path, row: ReportRow) -> None:
    """Raises MismatchError unless `folder` still holds the variant that was evaluated, to the byte."""
    if not (folder / layout.VARIANT).is_file():
        raise StoreError(f"{folder}: the variant is gone; make it again with the same qtool run")
    for evaluation in row.evaluations:
        if evaluation.variant_digest != row.variant.weights_digest:
            raise MismatchError(f"{folder}: {evaluation.task} was answered by other weights; run the plan again")
    if changed := changed_part(folder, row.variant):
        raise MismatchError(f"{folder}: its {changed} not those that were evaluated; run the plan again")
