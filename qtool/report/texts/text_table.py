"""The report in the terminal: the verdict table and the recommendation, plain text."""

import textwrap
from collections.abc import Sequence

from qtool.records.evaluation import Comparison
from qtool.records.report import Report, ReportRow
from qtool.report.texts.numbers import bytes_text, difference_text, median, quantile_text, score_text
from qtool.report.texts.views import bound_levels, evaluation_of, status, tasks_of

_WIDTH = 100
_SIGNS = {"PASS": "✓", "FAIL": "✗", "UNDECIDED": "?"}
_LEGEND = (
    "✓ PASS   ✗ FAIL   ? UNDECIDED   difference to the baseline [one-sided {common} bounds: below, above{others}]\n"
    "(task) is not critical"
)


def text_table(report: Report) -> str:
    """The verdicts, one line a variant; each task with its difference and n; then the recommendation in words."""
    parts = [_overview(report), _by_task(report), _wrapped(report.recommendation.reason)]
    rejected = [row for row in report.rows if row.rejected_because]
    if rejected:
        parts.append("\n".join(_wrapped(_rejection(row, report), "  ") for row in rejected))
    if report.notes:
        parts.append("\n".join(_wrapped(f"note: {note}", "  ") for note in report.notes))
    return "\n\n".join(part for part in parts if part)


def _overview(report: Report) -> str:
    head = ["variant", "verdict", "size", "of base", "median time", "speed", "front"]
    rows = [
        [
            ("* " if row.variant.name == report.recommendation.variant else "  ") + row.variant.name,
            status(row, report),
            bytes_text(row.variant.bytes),
            f"{100 * row.bytes_ratio:.0f} %",
            quantile_text(median(row.latency)),
            f"{row.speedup:.2f}x" if row.speedup else "-",
            "yes" if row.on_front else "",
        ]
        for row in report.rows
    ]
    return aligned(["  " + head[0], *head[1:]], rows)


def _by_task(report: Report) -> str:
    tasks = tasks_of(report)
    if not tasks:
        return ""
    names = [row.variant.name for row in report.rows]
    rows = [[_mark(task, report), _count(report, task), *(_cell(row, task) for row in report.rows)] for task in tasks]
    levels = bound_levels(report)
    others = f"; {levels.others}" if levels.others else ""
    return aligned(["task", "n", *names], rows) + "\n" + _LEGEND.format(common=levels.common, others=others)


def _rejection(row: ReportRow, report: Report) -> str:
    """Why a variant is not recommended, tasks of one verdict together; report.md and report.html have each interval."""
    tasks = tasks_of(report)
    found = {task: comparison for task in tasks if (comparison := _comparison(row, task)) is not None}
    parts = []
    for verdict in ("FAIL", "UNDECIDED"):
        named = {task: entry for task, entry in found.items() if entry.verdict == verdict}
        if named:
            needed = [entry.items_to_decide for entry in named.values() if entry.items_to_decide is not None]
            more = f" (up to {max(needed):,} items would decide)" if verdict == "UNDECIDED" and needed else ""
            parts.append(f"{verdict} on {', '.join(named)}{more}")
            at_margin = [task for task, entry in named.items() if entry.items_to_decide is None]
            if verdict == "UNDECIDED" and at_margin:
                parts.append(f"more items will not decide {', '.join(at_margin)}: the difference lies at the margin")
    parts += [reason for reason in row.rejected_because if reason.partition(":")[0] not in tasks]
    return f"{row.variant.name}: {'; '.join(parts)}"


def _comparison(row: ReportRow, task: str) -> Comparison | None:
    evaluation = evaluation_of(row, task)
    return None if evaluation is None else evaluation.comparison


def _mark(task: str, report: Report) -> str:
    return task if task in report.critical_tasks else f"({task})"


def _count(report: Report, task: str) -> str:
    counts = {found.score.items for row in report.rows if (found := evaluation_of(row, task)) is not None}
    return "/".join(str(count) for count in sorted(counts))


def _cell(row: ReportRow, task: str) -> str:
    found = evaluation_of(row, task)
    if found is None:
        return "-"
    if found.comparison is None:
        return score_text(found.score).partition(", n")[0]
    return f"{_SIGNS[found.comparison.verdict]} {difference_text(found.comparison, found.score)}"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`rows` under `head` in columns as wide as their widest cell."""
    table = [list(head), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + "  " if indent else "")
