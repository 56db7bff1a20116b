"""The variant to deploy under a user's own limits, by confidence bounds at the user's load."""

from collections import Counter
from collections.abc import Sequence

from qtool.errors import UnknownName
from qtool.records.choice import Candidate, Choice, LimitCheck, Limits
from qtool.records.cost import Costs
from qtool.records.evaluation import VerdictName
from qtool.records.report import Report, ReportRow
from qtool.report.money.fit import USABLE, footprint
from qtool.report.money.limits import cost_check, drop_checks, level_at, memory_check, time_check
from qtool.report.texts.numbers import bytes_text, dollars_text, large_text
from qtool.report.texts.text_table import aligned
from qtool.report.texts.views import tasks_of


def choose(report: Report, limits: Limits, *, costs: Costs | None, token_bytes: int | None) -> Choice:
    """The cheapest variant that keeps every limit with confidence; `token_bytes` is one token in the cache.

    Where costs are not known the one with most tokens a second at the load, then the smallest.
    """
    unknown = [task for task, _ in limits.drops if task not in tasks_of(report)]
    if unknown:
        raise UnknownName("task of this run", unknown[0], tasks_of(report))
    found = tuple(_candidate(report, row, limits, costs, token_bytes) for row in report.rows)
    sizes = {row.variant.name: row.variant.bytes for row in report.rows}
    passed = sorted(
        (each for each in found if each.verdict == "PASS"),
        key=lambda each: (-(each.tokens_per_second or 0.0), sizes[each.variant]),
    )
    verdict: VerdictName = "PASS" if passed else "FAIL"
    if not passed and any(each.verdict == "UNDECIDED" for each in found):
        verdict = "UNDECIDED"
    return Choice(
        run=report.run,
        load=limits.load,
        verdict=verdict,
        recommended=passed[0].variant if passed else None,
        runner_up=passed[1].variant if len(passed) > 1 else None,
        reason=_reason(passed, found),
        candidates=found,
        assumptions=(costs.assumptions if costs is not None else ()) + _of_instances(limits, token_bytes),
    )


def choice_text(found: Choice) -> str:
    """What is recommended and why, then each variant with what it broke or what would decide it."""
    at = f" with {found.load} requests in flight" if found.load else ""
    parts = [f"{found.reason}{at}." if found.recommended else f"{found.reason}."]
    head = [
        "variant",
        "verdict",
        "tokens/s",
        "$/1M tokens",
        "$/1,000 answers",
        "instances",
        "cheaper than the API from",
    ]
    rows = [
        [
            ("* " if each.variant == found.recommended else "  ") + each.variant,
            each.verdict,
            f"{each.tokens_per_second:,.0f}" if each.tokens_per_second else "-",
            _dollars(each.cost.dollars_per_million_tokens if each.cost else None),
            _dollars(each.cost.dollars_per_thousand_answers if each.cost else None),
            f"{each.instances:,}" if each.instances is not None else "-",
            _from(each),
        ]
        for each in found.candidates
    ]
    parts.append(aligned(["  " + head[0], *head[1:]], rows))
    commands = Counter(check.command for each in found.candidates for check in each.checks if check.command)
    shared = [command for command, count in commands.items() if count > 1]  # times all variants at once
    for each in found.candidates:
        lines = [line for check in each.checks if check.verdict != "PASS" for line in _check_lines(check, shared)]
        if lines:
            parts.append("\n".join([f"{each.variant}:", *lines]))
    parts += [f"to decide the times: {command}" for command in shared]
    if found.assumptions:
        parts.append("\n".join(f"assumed: {what}: {value}" for what, value in found.assumptions))
    return "\n\n".join(parts)


def _candidate(
    report: Report, row: ReportRow, limits: Limits, costs: Costs | None, token_bytes: int | None
) -> Candidate:
    level = level_at(row, limits.load)
    name = row.variant.name
    loads = [load for load in costs.loads if load.variant == name and load.rate_per_second is None] if costs else []
    cost = next((load for load in loads if level is not None and load.concurrency == level.concurrency), None)
    checks = drop_checks(report, row, limits)
    if limits.memory_bytes is not None:
        checks.append(memory_check(row, limits.memory_bytes))
    if limits.ttft_ms_p95 is not None:
        checks.append(time_check(report, row, "ttft", limits.ttft_ms_p95, limits.load))
    if limits.e2e_ms_p95 is not None:
        checks.append(time_check(report, row, "e2e", limits.e2e_ms_p95, limits.load))
    if limits.dollars_per_million_tokens is not None:
        checks.append(cost_check(cost, limits.dollars_per_million_tokens))
    verdicts = {check.verdict for check in checks}
    verdict: VerdictName = "FAIL" if "FAIL" in verdicts else "UNDECIDED" if "UNDECIDED" in verdicts else "PASS"
    each = _instance_bytes(row, limits, token_bytes)
    fits = int(limits.card_bytes * USABLE // each) if limits.card_bytes is not None and each else None
    even = next((entry for entry in costs.break_even if entry.variant == name), None) if costs else None
    tokens = level.output_tokens_per_second if level is not None else None
    return Candidate(name, verdict, tuple(checks), tokens, cost, even, each, fits)


def _instance_bytes(row: ReportRow, limits: Limits, token_bytes: int | None) -> int | None:
    """Weights and the cache for the load at the context asked for; as it was timed where no context was given."""
    if row.latency is None:
        return None
    if limits.context_tokens is None or token_bytes is None:
        return footprint(row.latency).bytes
    level = level_at(row, limits.load)
    load = limits.load or (level.concurrency if level is not None else 1)
    return row.latency.weight_bytes + token_bytes * limits.context_tokens * load


def _of_instances(limits: Limits, token_bytes: int | None) -> tuple[tuple[str, str], ...]:
    if limits.card_bytes is None:
        return ()
    size = f"{100 * USABLE:.0f} % of a card of {bytes_text(limits.card_bytes)}"
    if limits.context_tokens is None or token_bytes is None:
        return (("instances", f"{size}; weights and cache as they were timed"),)
    cache = f"a cache of {bytes_text(token_bytes)} a token for {limits.context_tokens:,} tokens of each request"
    return (("instances", f"{size}; weights and {cache}"),)


def _reason(passed: list[Candidate], found: tuple[Candidate, ...]) -> str:
    if passed:
        text = f"Deploy {passed[0].variant}: it keeps every limit"
        if len(passed) > 1:
            text += f"; next is {passed[1].variant}"
        return text
    open_ones = [each.variant for each in found if each.verdict == "UNDECIDED"]
    if open_ones:
        return f"UNDECIDED: no variant is shown to keep every limit; {', '.join(open_ones)} may"
    return "No variant keeps every limit"


def _check_lines(check: LimitCheck, shared: Sequence[str]) -> list[str]:
    word = "breaks" if check.verdict == "FAIL" else "not decided"
    lines = [f"  {word}: {check.limit}: {check.reason}"]
    return [*lines, f"    decide: {check.command}"] if check.command and check.command not in shared else lines


def _dollars(value: float | None) -> str:
    return "-" if value is None else dollars_text(value)


def _from(candidate: Candidate) -> str:
    even = candidate.break_even
    if even is None:
        return "-"
    return "never" if even.answers_per_month is None else f"{large_text(even.answers_per_month)} answers a month"
