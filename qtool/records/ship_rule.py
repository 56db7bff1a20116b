"""The ship rule: which tasks count, how their verdicts fold into one, and the exit code that stands for it.

Every command that ends in a verdict (eval, compare, run, the report, a ladder's rung) asks this module.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qtool.records.evaluation import Evaluation, Interval, VerdictName
from qtool.records.report import Report
from qtool.records.task import Tier

# of eval, compare and run; an error has a code of its own, so a pipeline may act on these three
EXIT_CODES: Mapping[VerdictName, int] = {"PASS": 0, "FAIL": 1, "UNDECIDED": 2}
NO_QUESTION_EXIT_CODE = 0  # an evaluation without a baseline asks for no verdict


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """What one task says: `verdict` is None where the task was not compared with the baseline."""

    task: str
    verdict: VerdictName | None
    tier: Tier = "critical"


def overall(verdicts: Iterable[TaskVerdict]) -> VerdictName:
    """Intersection-union over the tasks that count: FAIL if one fails, PASS only if each passes, else UNDECIDED.

    A critical task that was not compared leaves the whole UNDECIDED: nothing is passed by leaving it out. So does
    having no task at all. A supporting task makes it FAIL if it fails, and holds nothing back otherwise.
    """
    judged = tuple(verdicts)
    counting = frozenset(counting_tasks({each.task: each.tier for each in judged}))
    found = {each.verdict or "UNDECIDED" for each in judged if each.task in counting}
    if "FAIL" in found or any(each.verdict == "FAIL" and each.tier == "supporting" for each in judged):
        return "FAIL"
    return "UNDECIDED" if "UNDECIDED" in found or not found else "PASS"


def counting_tasks(tiers: Mapping[str, Tier]) -> tuple[str, ...]:
    """The tasks that must pass: the critical ones; where none is, the supporting ones, or else all, in the order given.

    Without that a variant that fails all it was asked would be passed by calling nothing critical.
    """
    for deciding in ("critical", "supporting"):
        if found := tuple(task for task, tier in tiers.items() if tier == deciding):
            return found
    return tuple(tiers)


def verdict_of(evaluation: Evaluation) -> TaskVerdict:
    """What `evaluation` says about its task. One written before the task's weight was recorded counts as critical."""
    comparison = evaluation.comparison
    verdict = None if comparison is None else comparison.verdict
    return TaskVerdict(evaluation.task, verdict, tier_of(evaluation.tier, critical=evaluation.critical))


def tier_of(tier: Tier | None, *, critical: bool | None) -> Tier:
    """A tier as it was given, or as the older `critical` says it; "critical" where neither was."""
    return tier or ("advisory" if critical is False else "critical")


def verdict_of_bounds(interval: Interval, margin: float) -> VerdictName:
    """The verdict that the two one-sided bounds of a difference give."""
    if interval.low > -margin:
        return "PASS"
    return "FAIL" if interval.high < -margin else "UNDECIDED"


def run_verdict(report: Report) -> VerdictName:
    """PASS where a variant is recommended, UNDECIDED where more items might change that, else FAIL: ship none."""
    if report.recommendation.variant is not None:
        return "PASS"
    verdicts = {row.overall for row in report.rows if row.variant.name != report.baseline}
    return "UNDECIDED" if "UNDECIDED" in verdicts or not verdicts else "FAIL"


def exit_code(verdict: VerdictName | None) -> int:
    """0 for PASS, 1 for FAIL, 2 for UNDECIDED; 0 where no verdict was asked for."""
    return NO_QUESTION_EXIT_CODE if verdict is None else EXIT_CODES[verdict]
