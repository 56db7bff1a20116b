"""The main table: each variant with its verdict, size, memory, times at the lowest and highest load, and cost."""

from collections.abc import Callable
from dataclasses import dataclass

from qtool.records.latency import LoadLevel, Quantile
from qtool.records.report import Report, ReportRow
from qtool.report.decision import cost_at, highest_level
from qtool.report.texts.numbers import (
    bare_ms,
    bytes_text,
    dollars_text,
    lowest_level,
    ms_text,
    quantile,
    seconds_text,
    speed_span,
)
from qtool.report.texts.views import status

NOT_MEASURED = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """A number and what belongs to it: interval, n, share of the baseline."""

    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's short head, what it means, and its cell of a row."""

    head: str
    means: str
    cell: Callable[[ReportRow], Cell]


def overview(report: Report) -> tuple[Column, ...]:
    """The columns after the variant's name, the most telling first; those that no row has a number for are left out."""
    counts = sorted({level.requests for row in report.rows if row.latency for level in row.latency.levels})
    n = f"n {'/'.join(map(str, counts))}" if counts else ""
    loads = sorted({level.concurrency for row in report.rows if row.latency for level in row.latency.levels})
    low, high = (loads[0], loads[-1]) if loads else (1, 1)
    columns = [
        Column("verdict", "over all critical tasks", lambda row: Cell(status(row, report))),
        Column("weights", "bytes on disk, and the share of the baseline's", _size),
        Column("speed", "the baseline's median time of a request over the variant's", lambda row: _speed(report, row)),
        Column("TTFT", f"time to the first token, median, {low} in flight, {n}", lambda row: _first(row, "ttft", 0.5)),
        Column("TPOT", f"time of each later token, median, {low} in flight, {n}", lambda row: _first(row, "tpot", 0.5)),
        Column(
            f"p95 at {low}", f"95 % of requests end within, {low} in flight, {n}", lambda row: _first(row, "e2e", 0.95)
        ),
    ]
    if high > low:
        under = f"95 % of requests end within, {high} in flight, {n}"
        columns.append(Column(f"p95 at {high}", under, lambda row: _at(highest_level(row), "e2e", 0.95)))
    columns += [
        Column("peak memory", "of a process that loads the model and answers at the highest load", _memory),
        Column("cold start", "from the process's start to its first token", _start),
        Column("$/1M tokens", f"dollars per million good tokens, {high} in flight", lambda row: _cost(report, row)),
    ]
    return tuple(column for column in columns if any(column.cell(row).text != NOT_MEASURED for row in report.rows))


def _size(row: ReportRow) -> Cell:
    return Cell(bytes_text(row.variant.bytes), f"{100 * row.bytes_ratio:.0f} %")


def _speed(report: Report, row: ReportRow) -> Cell:
    if not row.speedup:
        return Cell(NOT_MEASURED)
    span = speed_span(report.rows[0].latency, row.latency)
    own = row.variant.name == report.baseline or span is None
    return Cell(f"{row.speedup:.2f}×", "" if own or span is None else f"[{span.low:.2f}, {span.high:.2f}]")


def _first(row: ReportRow, measure: str, q: float) -> Cell:
    return _at(lowest_level(row.latency), measure, q)


def _at(level: LoadLevel | None, measure: str, q: float) -> Cell:
    entries: tuple[Quantile, ...] = getattr(level, measure) if level is not None else ()
    found = quantile(entries, q)
    if found is None:
        return Cell(NOT_MEASURED)
    if found.value_ms is None:
        return Cell(f"needs n {found.samples_needed}", f"has {found.samples}")
    span = found.interval
    return Cell(ms_text(found.value_ms), f"[{bare_ms(span.low)}, {bare_ms(span.high)}]" if span is not None else "")


def _memory(row: ReportRow) -> Cell:
    if row.latency is None or not row.latency.peak_memory_bytes:
        return Cell(NOT_MEASURED)
    return Cell(bytes_text(row.latency.peak_gpu_bytes or row.latency.peak_memory_bytes))


def _start(row: ReportRow) -> Cell:
    if row.latency is None or not row.latency.first_token_seconds:
        return Cell(NOT_MEASURED)
    return Cell(seconds_text(row.latency.first_token_seconds))


def _cost(report: Report, row: ReportRow) -> Cell:
    found = cost_at(report, row.variant.name, highest_level(row))
    if found is None or found.dollars_per_million_tokens is None:
        return Cell(NOT_MEASURED)
    return Cell(dollars_text(found.dollars_per_million_tokens))
