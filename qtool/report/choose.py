"""Which variant to ship, which one comes next, and in words why each other one is not it."""

from collections.abc import Sequence

from qtool.records.evaluation import Evaluation
from qtool.records.plan import Budget
from qtool.records.report import Recommendation, Report, ReportRow
from qtool.records.unverified import problem_of
from qtool.report.judge import worst_margin_use
from qtool.report.pareto import dominates, front
from qtool.report.texts.numbers import bytes_text, difference_text, margin_text, median, ms_text, quantile, speed_span
from qtool.report.texts.undecided import what_decides


def on_front(rows: Sequence[ReportRow], critical: tuple[str, ...]) -> tuple[bool, ...]:
    """For each row whether no other beats it in worst-task lower bound, median time and bytes at once.

    The baseline's own bound is no change at all, which no variant can be shown to reach: a variant beats the baseline
    where it passes and is better in time and size. A row with an unknown coordinate is left out of the comparison and
    is not on the front; a coordinate unknown for all rows is ignored.
    """
    costs = [_costs(row, critical) for row in rows]
    known = [place for place in range(3) if any(cost[place] is not None for cost in costs)]
    complete = [index for index, cost in enumerate(costs) if all(cost[place] is not None for place in known)]
    points = [tuple(float(costs[index][place] or 0.0) for place in known) for index in complete]
    kept = {index for index, kept in zip(complete, front(points), strict=True) if kept}
    prices = {
        index: tuple(value for place, value in zip(known, point, strict=True) if place > 0)
        for index, point in zip(complete, points, strict=True)
    }
    for index in [index for index in kept if rows[index].overall is None]:
        passed = [other for other in complete if rows[other].overall == "PASS"]
        if any(dominates(prices[other], prices[index]) for other in passed):
            kept.discard(index)
    return tuple(index in kept for index in range(len(rows)))


def rejections(row: ReportRow, critical: tuple[str, ...], budget: Budget) -> tuple[str, ...]:
    """Every reason against shipping `row`, each a sentence part; empty when nothing speaks against it."""
    if row.variant.recipe.scheme == "base":
        return ()
    problem = problem_of(row.variant)
    unverified = [f"unverified: {problem}"] if problem else []
    by_task = {evaluation.task: evaluation for evaluation in row.evaluations}
    reasons = unverified + [text for task in critical if (text := _task_reason(task, by_task.get(task))) is not None]
    reasons += [
        text
        for each in row.evaluations
        if each.tier == "supporting" and each.task not in critical and each.comparison is not None
        and each.comparison.verdict == "FAIL" and (text := _task_reason(each.task, each)) is not None
    ]  # fmt: skip
    if not critical:
        reasons.append("no task was evaluated")
    reasons += _budget_reasons(row, budget)
    if not reasons and not row.on_front:
        reasons.append("another variant is at least as good in accuracy, time and size, and better in one of them")
    return tuple(reasons)


def recommend(rows: Sequence[ReportRow], critical: tuple[str, ...]) -> Recommendation:
    """The variant that nothing speaks against with the smallest product of size and time, and the next one."""
    baseline = next(row for row in rows if row.variant.recipe.scheme == "base")
    candidates = [row for row in rows if row is not baseline and row.overall == "PASS" and not row.rejected_because]
    ranked = sorted(candidates, key=lambda row: (row.bytes_ratio / (row.speedup or 1.0), row.variant.name))
    if not ranked:
        return Recommendation(None, None, _nothing(rows, baseline))
    best = ranked[0]
    runner_up = ranked[1].variant.name if len(ranked) > 1 else None
    return Recommendation(best.variant.name, runner_up, _reason(best, baseline, critical, ranked[1:]))


def why_not(report: Report) -> tuple[tuple[str, str], ...]:
    """For each variant that is not recommended, its name and why: what speaks against it, or what the other has more
    of."""
    best = next((row for row in report.rows if row.variant.name == report.recommendation.variant), None)
    found = []
    for row in report.rows:
        if row is best or row.variant.name == report.baseline:
            continue
        if row.rejected_because:
            found.append((row.variant.name, "; ".join(row.rejected_because)))
        elif best is not None:
            text = f"passes too; size times time is {_size_times_time(row)} of the baseline's, {best.variant.name}'s "
            found.append((row.variant.name, f"{text}is {_size_times_time(best)}"))
    return tuple(found)


def _size_times_time(row: ReportRow) -> str:
    if row.speedup is None:
        return f"{100 * row.bytes_ratio:.0f} % (size alone)"
    return f"{100 * row.bytes_ratio / row.speedup:.0f} %"


def trade(row: ReportRow, baseline: ReportRow) -> str:
    """What a variant changes in size and time: `27 % of the bytes, 1.4 times as fast`."""
    size = f"{100 * row.bytes_ratio:.0f} % of the bytes"
    if row.speedup is None:
        return f"{size}, speed not measured"
    span = speed_span(baseline.latency, row.latency)
    if span is not None and span.low <= 1 <= span.high:
        return f"{size}, no difference in speed that these samples could show"
    if row.speedup >= 1:
        return f"{size}, {row.speedup:.2f} times as fast"
    return f"{size}, taking {1 / row.speedup:.2f} times as long"


def _costs(row: ReportRow, critical: tuple[str, ...]) -> tuple[float | None, float | None, float]:
    worst = worst_margin_use(row, critical)
    time = median(row.latency)
    return (-worst.low if worst else None, time.value_ms if time else None, float(row.variant.bytes))


def _task_reason(task: str, evaluation: Evaluation | None) -> str | None:
    if evaluation is None or evaluation.comparison is None:
        return f"{task}: not compared with the baseline"
    comparison = evaluation.comparison
    if comparison.verdict == "PASS":
        return None
    change = difference_text(comparison, evaluation.score)
    margin = margin_text(comparison, evaluation.score)
    if comparison.verdict == "FAIL":
        return f"{task}: FAIL, change {change} with a margin of {margin} (n {evaluation.score.items})"
    told = f"change {change} with a margin of {margin} (n {evaluation.score.items})"
    return f"{task}: UNDECIDED, {told}; {what_decides(comparison)}"


def _budget_reasons(row: ReportRow, budget: Budget) -> list[str]:
    reasons = []
    if budget.memory_bytes is not None:
        used = row.latency.peak_memory_bytes if row.latency else None
        if used is None:
            reasons.append("memory budget: peak memory not measured")
        elif used > budget.memory_bytes:
            reasons.append(f"memory budget: peak {bytes_text(used)} is above {bytes_text(budget.memory_bytes)}")
    if budget.e2e_ms_p95 is not None:
        reasons += _time_reasons(row, budget.e2e_ms_p95)
    return reasons


def _time_reasons(row: ReportRow, limit_ms: float) -> list[str]:
    if row.latency is None or not row.latency.levels:
        return ["time budget: latency not measured"]
    reasons = []
    for level in row.latency.levels:
        found = quantile(level.e2e, 0.95)
        if found is None or found.value_ms is None:
            reasons.append(f"time budget: too few requests at concurrency {level.concurrency} for a p95")
        elif found.value_ms > limit_ms:
            reasons.append(
                f"time budget: p95 {ms_text(found.value_ms)} at concurrency {level.concurrency} "
                f"is above {ms_text(limit_ms)} (n {found.samples})"
            )
    return reasons


def _reason(best: ReportRow, baseline: ReportRow, critical: tuple[str, ...], others: Sequence[ReportRow]) -> str:
    worst = worst_margin_use(best, critical)
    assert worst is not None  # it passed, so it was compared
    evaluation = next(entry for entry in best.evaluations if entry.task == worst.task)
    compared = evaluation.comparison
    assert compared is not None
    tasks = f"all {len(critical)} critical tasks" if len(critical) > 1 else f"the critical task {critical[0]}"
    text = (
        f"Ship {best.variant.name}: it passes {tasks} against {baseline.variant.name} at {trade(best, baseline)}. "
        f"Its weakest is {worst.task}: change {difference_text(compared, evaluation.score)} with a margin of "
        f"{margin_text(compared, evaluation.score)}, n {evaluation.score.items}."
    )
    if others:
        text += f" Next is {others[0].variant.name} at {trade(others[0], baseline)}."
    return text


def _nothing(rows: Sequence[ReportRow], baseline: ReportRow) -> str:
    others = [row for row in rows if row is not baseline]
    if not others:
        return f"There is nothing to choose from: the run holds only {baseline.variant.name}."
    undecided = [row.variant.name for row in others if row.overall == "UNDECIDED"]
    text = f"Ship none of the {len(others)} variants; stay with {baseline.variant.name}."
    if undecided:
        text += f" Undecided: {', '.join(undecided)}; the line of each says what would decide it."
    passed = [row.variant.name for row in others if row.overall == "PASS"]
    if passed:
        text += f" {', '.join(passed)} passed on accuracy and was rejected for other reasons."
    return text
