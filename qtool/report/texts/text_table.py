"""The report in the terminal: the verdict table and the recommendation, plain text."""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

from qtool.records.evaluation import Comparison
from qtool.records.report import Report, ReportRow
from qtool.report.texts.numbers import difference_text, score_text
from qtool.report.texts.overview import overview
from qtool.report.texts.undecided import what_decides
from qtool.report.texts.views import bound_levels, evaluation_of, tasks_of

_WIDEST = 100  # characters of a line of prose
_NARROWEST = 40
_SIGNS = {"PASS": "✓", "FAIL": "✗", "UNDECIDED": "?"}
_COLOURS = {"PASS": "green", "FAIL": "red", "UNDECIDED": "yellow", "✓": "green", "✗": "red", "?": "yellow"}
_LEGEND = (
    "✓ PASS   ✗ FAIL   ? UNDECIDED\ndifference to the baseline [one-sided {common} bounds: below, above{others}]\n"
    "(task) is not critical"
)


def text_table(report: Report, *, width: int | None = None, colour: bool = False) -> str:
    """The verdicts, one line a variant; each task with its difference and n; then the recommendation in words.

    No line is longer than `width`: columns that do not fit stand below, under their own heads.
    """
    prose = max(_NARROWEST, min(width or _WIDEST, _WIDEST))
    parts = [_overview(report, width, colour), _by_task(report, width, colour)]
    parts.append(_wrapped(report.recommendation.reason, prose))
    rejected = [row for row in report.rows if row.rejected_because]
    if rejected:
        parts.append("\n".join(_wrapped(_rejection(row, report), prose, "  ") for row in rejected))
    if report.notes:
        parts.append("\n".join(_wrapped(f"note: {note}", prose, "  ") for note in report.notes))
    return "\n\n".join(part for part in parts if part)


def _overview(report: Report, width: int | None, colour: bool) -> str:
    columns = overview(report)
    head = ["variant", *(column.head for column in columns), "front"]
    rows = [
        [
            ("* " if row.variant.name == report.recommendation.variant else "  ") + row.variant.name,
            *(column.cell(row).text for column in columns),
            "yes" if row.on_front else "",
        ]
        for row in report.rows
    ]
    return drawn(["  " + head[0], *head[1:]], rows, width=width, colour=colour)


def _by_task(report: Report, width: int | None, colour: bool) -> str:
    tasks = tasks_of(report)
    if not tasks:
        return ""
    names = [row.variant.name for row in report.rows]
    rows = [[_mark(task, report), _count(report, task), *(_cell(row, task) for row in report.rows)] for task in tasks]
    levels = bound_levels(report)
    others = f"; {levels.others}" if levels.others else ""
    legend = _LEGEND.format(common=levels.common, others=others)
    lines = [_wrapped(line, width) if width else line for line in legend.split("\n")]
    return drawn(["task", "n", *names], rows, width=width, colour=colour) + "\n" + "\n".join(lines)


def _rejection(row: ReportRow, report: Report) -> str:
    """Why a variant is not recommended, tasks of one verdict together; report.md and report.html have each interval."""
    tasks = tasks_of(report)
    found = {task: comparison for task in tasks if (comparison := _comparison(row, task)) is not None}
    failed = [task for task, entry in found.items() if entry.verdict == "FAIL"]
    parts = [f"FAIL on {', '.join(failed)}"] if failed else []
    parts += _undecided({task: entry for task, entry in found.items() if entry.verdict == "UNDECIDED"})
    parts += [reason for reason in row.rejected_because if reason.partition(":")[0] not in tasks]
    return f"{row.variant.name}: {'; '.join(parts)}"


def _undecided(tasks: dict[str, Comparison]) -> list[str]:
    """One text for all tasks that more items would decide, and one for each other reason."""
    needed = [entry.items_to_decide for entry in tasks.values() if entry.items_to_decide is not None]
    by_text: dict[str, list[str]] = {}
    for task, entry in tasks.items():
        text = what_decides(entry) if entry.items_to_decide is None else f"up to {max(needed):,} items would decide"
        by_text.setdefault(text, []).append(task)
    return [f"UNDECIDED on {', '.join(names)}: {text}" for text, names in by_text.items()]


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


def drawn(head: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, colour: bool = False) -> str:
    """`rows` under `head`, as several tables one below the other where one is wider than `width`; each begins with the
    first column. With `colour`, verdicts have theirs."""
    columns = list(zip(head, *rows, strict=True))
    sizes = [max(map(len, column)) for column in columns]
    blocks: list[list[int]] = [[0]]
    for index in range(1, len(columns)):
        used = sum(sizes[other] + 2 for other in blocks[-1]) + sizes[index]
        if width is not None and used > width and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(index)
    tables = []
    for block in blocks:
        picked = [[row[index] for index in block] for row in [head, *rows]]
        tables.append(_coloured(picked, colour))
    return "\n\n".join(tables)


def _coloured(table: Sequence[Sequence[str]], colour: bool) -> str:
    """One table as rich draws it: without a frame, and with colours where they are wanted."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    found = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for width in widths:
        found.add_column(no_wrap=True, width=width)
    found.add_row(*(Text(cell, style="bold") for cell in table[0]))
    found.add_row(*(Text("─" * width) for width in widths))
    for row in table[1:]:
        found.add_row(*(Text(cell, style=_COLOURS.get(cell.split(" ")[0], "")) for cell in row))
    out = StringIO()
    room = sum(widths) + 2 * len(widths) + 1
    Console(
        file=out,
        width=room,
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        highlight=False,
    ).print(found)
    lines = out.getvalue().rstrip("\n").split("\n")
    return "\n".join(re.sub(r" +((?:\x1b\[0m)?)$", r"\1", line.rstrip()) for line in lines)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """`rows` under `head` in columns as wide as their widest cell; on a terminal never wider than that."""
    return drawn(head, rows, width=terminal_width())


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where it is a file or a pipe, which have no edge."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def terminal_colour() -> bool:
    """Whether colours are wanted: standard output is a terminal, and NO_COLOR is not set."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent + "  " if indent else "")
