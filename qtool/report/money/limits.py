"""One variant against one limit: kept, broken, or not decided by what was measured, and then what would decide it."""

import shlex

from qtool.records.choice import LimitCheck, Limits
from qtool.records.cost import LoadCost
from qtool.records.evaluation import Evaluation, VerdictName
from qtool.records.latency import LoadLevel, Quantile
from qtool.records.report import Report, ReportRow
from qtool.report.texts.numbers import bytes_text, difference_text, dollars_text, ms_text, quantile
from qtool.report.texts.views import evaluation_of

_MOST_ITEMS = 20_000  # as `items_to_decide` counts: beyond, the difference lies at the margin
_MORE_REQUESTS = 100  # give a p95 an interval


def level_at(row: ReportRow, load: int | None) -> LoadLevel | None:
    """The load level with `load` requests in flight, else the next higher one, whose times are no better; without a
    load the highest."""
    levels = row.latency.levels if row.latency is not None and not row.latency.simulated else ()
    closed = sorted((level for level in levels if level.arrivals == "closed"), key=lambda level: level.concurrency)
    if load is None:
        return closed[-1] if closed else None
    return next((level for level in closed if level.concurrency >= load), None)


def drop_checks(report: Report, row: ReportRow, limits: Limits) -> list[LimitCheck]:
    """A check for every critical task and every task that a drop was given for; the baseline loses nothing."""
    if row.variant.name == report.baseline:
        return []
    accepted = dict(limits.drops)
    tasks = dict.fromkeys([*report.critical_tasks, *accepted])
    return [_drop(report, row, task, accepted.get(task)) for task in tasks]


def memory_check(row: ReportRow, most: int) -> LimitCheck:
    """Peak memory, as it was measured."""
    name = f"memory of at most {bytes_text(most)}"
    profile = row.latency
    if profile is None or not profile.peak_memory_bytes:
        return LimitCheck(name, "UNDECIDED", "peak memory was not measured")
    used = profile.peak_gpu_bytes or profile.peak_memory_bytes
    return LimitCheck(name, "PASS" if used <= most else "FAIL", f"peak memory {bytes_text(used)}")


def time_check(report: Report, row: ReportRow, measure: str, most_ms: float, load: int | None) -> LimitCheck:
    """p95 of the time to the first token (`ttft`) or to the end (`e2e`) at the load, by its bounds."""
    words = {"ttft": "time to first token", "e2e": "time to answer"}[measure]
    name = f"p95 {words} of at most {ms_text(most_ms)}"
    level = level_at(row, load)
    if level is None:
        timed = max((each.concurrency for each in row.latency.levels), default=0) if row.latency is not None else 0
        reason = f"not timed with {load} in flight, only up to {timed}" if timed else "not timed"
        return LimitCheck(name, "UNDECIDED", reason, _bench(report, load or 1))
    found = quantile(getattr(level, measure), 0.95)
    verdict = _time_verdict(found, most_ms)
    reason = f"{_bounds(found)} with {level.concurrency} in flight"
    command = _bench(report, level.concurrency) if verdict == "UNDECIDED" else ""
    return LimitCheck(name, verdict, reason, command)


def cost_check(cost: LoadCost | None, most: float) -> LimitCheck:
    """Dollars per million good tokens at the load. Throughput has no interval: within 5 % of the limit is undecided."""
    name = f"at most {dollars_text(most)} per million tokens"
    if cost is None or cost.dollars_per_million_tokens is None:
        return LimitCheck(name, "UNDECIDED", "no price or no throughput is known at this load")
    value = cost.dollars_per_million_tokens
    near = abs(value / most - 1) < 0.05
    return LimitCheck(name, "UNDECIDED" if near else "PASS" if value < most else "FAIL", f"costs {dollars_text(value)}")


def _drop(report: Report, row: ReportRow, task: str, points: float | None) -> LimitCheck:
    found = evaluation_of(row, task)
    compared = found.comparison if found is not None else None
    if found is None or compared is None:
        return LimitCheck(f"{task}", "UNDECIDED", "not compared with the baseline")
    margin = compared.margin if points is None else points / 100
    unit = "points" if found.score.is_fraction else "hundredths of a nat"
    name = f"{task}: at most {100 * margin:.3g} {unit} lost"
    reason = f"change {difference_text(compared, found.score)}, n {found.score.items:,}"
    if compared.base_fails:
        return LimitCheck(name, "UNDECIDED", "the base cannot do this task, so it shows nothing")
    low, high = compared.interval.low, compared.interval.high
    if low > -margin:
        return LimitCheck(name, "PASS", reason)
    if high < -margin:
        return LimitCheck(name, "FAIL", reason)
    needed = compared.items_to_decide if points is None else _MOST_ITEMS
    command = _more_items(report, row, found, 100 * margin, needed) if needed else ""
    return LimitCheck(name, "UNDECIDED", reason, command)


def _more_items(report: Report, row: ReportRow, found: Evaluation, points: float, needed: int) -> str:
    words = ["qtool", "eval", f"{report.run}/variants/{row.variant.name}", "--task", found.task]
    words += ["--baseline", f"{report.run}/variants/{report.baseline}", "--items", str(found.score.items)]
    words += ["--margin", f"{points:g}", "--until-decided", str(needed)]
    return shlex.join([*words, *(["--chat"] if found.chat else [])])


def _time_verdict(found: Quantile | None, most_ms: float) -> VerdictName:
    if found is None or found.value_ms is None or found.interval is None:
        return "UNDECIDED"
    if found.interval.high <= most_ms:
        return "PASS"
    return "FAIL" if found.interval.low > most_ms else "UNDECIDED"


def _bounds(found: Quantile | None) -> str:
    if found is None or found.value_ms is None:
        return "too few requests for a p95"
    if found.interval is None:
        return f"{ms_text(found.value_ms)}, n {found.samples}, too few for bounds"
    return f"{ms_text(found.value_ms)} [{found.interval.low:.3g}, {found.interval.high:.3g}], n {found.samples}"


def _bench(report: Report, load: int) -> str:
    """The command that times every variant of the run again, side by side, at its own loads and this one, with enough
    requests for the bounds of a p95."""
    timed = [row for row in report.rows if row.latency is not None and row.latency.levels]
    levels = [level for row in timed if row.latency is not None for level in row.latency.levels]
    names = [row.variant.name for row in timed or report.rows]
    words = ["qtool", "bench", *(f"{report.run}/variants/{name}" for name in names), "-o", f"{report.run}/latency"]
    loads = sorted({load, *(level.concurrency for level in levels if level.arrivals == "closed")})
    words += [word for each in loads for word in ("-c", str(each))]
    words += ["--requests", str(max([_MORE_REQUESTS, *(4 * level.requests for level in levels)]))]
    if levels:
        words += ["--prompt-tokens", str(levels[0].prompt_tokens), "--output-tokens", str(levels[0].output_tokens)]
    return shlex.join(words)
