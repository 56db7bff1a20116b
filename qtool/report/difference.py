"""Two runs side by side: what changed in the verdicts, scores, sizes and times of the variants that both have."""

from dataclasses import dataclass

from qtool.errors import MismatchError
from qtool.records.evaluation import Evaluation
from qtool.records.model import same_base
from qtool.records.report import Report, ReportRow
from qtool.report.texts.numbers import bytes_text, interval_text, median, ms_text, signed, speed_span, value_text
from qtool.report.texts.text_table import aligned
from qtool.report.texts.views import evaluation_of, status, tasks_of


@dataclass(frozen=True, slots=True)
class Change:
    """One number of one variant in both runs, in words; `note` says how to read it, such as "other items"."""

    variant: str
    what: str
    before: str
    after: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class ReportDifference:
    """What differs from run `before` to run `after`; `alike` counts the verdicts that did not change."""

    before: str
    after: str
    recommended_before: str | None
    recommended_after: str | None
    changes: tuple[Change, ...]
    alike: int
    cautions: tuple[str, ...]


def difference(before: Report, after: Report) -> ReportDifference:
    """What changed from `before` to `after`. Raises MismatchError where their bases differ."""
    bases = before.rows[0].variant.base, after.rows[0].variant.base
    if not same_base(bases[0], bases[1]):
        raise MismatchError(
            f"{before.run} is of {bases[0].name} (weights {bases[0].weights_digest[:12]}), {after.run} of "
            f"{bases[1].name} ({bases[1].weights_digest[:12]}); compare runs of one base"
        )
    changes: list[Change] = []
    alike = 0
    old = {row.variant.name: row for row in before.rows}
    new = {row.variant.name: row for row in after.rows}
    for name in dict.fromkeys([*old, *new]):
        if name not in old or name not in new:
            there, gone = "there", "not there"
            words = (there, gone) if name in old else (gone, there)
            changes.append(Change(name, "variant", *words))
            continue
        found, same = _of_variant((before, old[name]), (after, new[name]))
        changes += found
        alike += same
    chosen = before.recommendation.variant, after.recommendation.variant
    return ReportDifference(before.run, after.run, *chosen, tuple(changes), alike, _cautions(before, after))


def difference_text(found: ReportDifference) -> str:
    """The changes as a table, after what is recommended in each run."""
    said = [found.recommended_before or "none", found.recommended_after or "none"]
    same = "in both" if said[0] == said[1] else f"before, {said[1]} after"
    lines = [f"{found.before} -> {found.after}", f"recommended: {said[0]} {same}"]
    lines += [f"note: {caution}" for caution in found.cautions]
    if found.changes:
        rows = [[each.variant, each.what, each.before, each.after, each.note] for each in found.changes]
        lines += ["", aligned(["variant", "what", "before", "after", ""], rows)]
    lines += ["", f"{found.alike} verdicts are the same in both"]
    return "\n".join(lines)


def _of_variant(before: tuple[Report, ReportRow], after: tuple[Report, ReportRow]) -> tuple[list[Change], int]:
    (old_report, old), (new_report, new) = before, after
    name = old.variant.name
    found = []
    words = status(old, old_report), status(new, new_report)
    if words[0] != words[1]:
        found.append(Change(name, "overall", *words))
    alike = 0
    for task in dict.fromkeys([*tasks_of(old_report), *tasks_of(new_report)]):
        change = _of_task(name, task, evaluation_of(old, task), evaluation_of(new, task))
        found += [change] if change is not None else []
        alike += change is None
    if old.variant.weights_digest != new.variant.weights_digest:
        digests = old.variant.weights_digest[:12], new.variant.weights_digest[:12]
        found.append(Change(name, "weights", *digests))
    if old.variant.bytes != new.variant.bytes:
        found.append(Change(name, "size", bytes_text(old.variant.bytes), bytes_text(new.variant.bytes)))
    return [*found, *(_of_time(old, new) if _machines(old_report) == _machines(new_report) else ())], alike


def _of_task(name: str, task: str, old: Evaluation | None, new: Evaluation | None) -> Change | None:
    """What changed on one task: nothing where the verdict, or without one the score, is the same."""
    if old is None or new is None:
        missing = "not evaluated"
        words = missing if old is None else _said(old), missing if new is None else _said(new)
        return None if old is new else Change(name, task, *words)
    note = "" if old.items_digest == new.items_digest else "other items"
    if old.comparison is None or new.comparison is None:
        same = old.score.value == new.score.value
    else:
        same = old.comparison.verdict == new.comparison.verdict
    return None if same else Change(name, task, _said(old), _said(new), note)


def _said(evaluation: Evaluation) -> str:
    compared = evaluation.comparison
    if compared is None:
        return f"{value_text(evaluation.score)}, n {evaluation.score.items}"
    factor = 100 if evaluation.score.is_fraction else 1
    bounds = interval_text(compared.interval, factor)
    return f"{compared.verdict} {signed(factor * compared.difference)} {bounds}, n {evaluation.score.items}"


def _of_time(old: ReportRow, new: ReportRow) -> list[Change]:
    """The median time, where the intervals say that it changed."""
    times = median(old.latency), median(new.latency)
    span = speed_span(old.latency, new.latency)
    if times[0] is None or times[1] is None or span is None or span.low <= 1 <= span.high:
        return []
    words = [ms_text(time.value_ms) for time in times if time is not None and time.value_ms is not None]
    text = f"{span.low:.2f} to {span.high:.2f} times as fast"
    return [Change(old.variant.name, "median time", words[0], words[1], text)]


def _cautions(before: Report, after: Report) -> tuple[str, ...]:
    found = []
    machines = _machines(before), _machines(after)
    if machines[0] and machines[1] and machines[0] != machines[1]:
        found.append("the two were timed on different machines or threads: their times are not compared")
    if before.qtool_version != after.qtool_version:
        found.append(f"made by qtool {before.qtool_version} and {after.qtool_version}")
    return tuple(found)


def _machines(report: Report) -> set[tuple[str, int]]:
    return {(row.latency.machine.hardware, row.latency.machine.threads) for row in report.rows if row.latency}
