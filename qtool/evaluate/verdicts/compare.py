"""Two finished evaluations, whoever made them, put through the same paired statistics: no model is needed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from qtool import catalog
from qtool.errors import DataError, MismatchError, PlanError
from qtool.evaluate import base_check, results
from qtool.evaluate.asking.subject import refuse_other_base
from qtool.evaluate.contract import Metric
from qtool.evaluate.items.tasks import FOREIGN_METRIC, METRICS
from qtool.evaluate.lm_eval.sample_log import LoggedMetric
from qtool.evaluate.lm_eval.sample_runs import read_runs
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.session import DEFAULT_MARGIN_POINTS, WorseTask, worse_tasks
from qtool.evaluate.verdicts import metric_scale, paired
from qtool.evaluate.verdicts.pooled import pool, sentence
from qtool.evaluate.verdicts.verdict import LEVEL
from qtool.records.evaluation import Churn, Comparison, Evaluation, ItemResult, Look, Pooled, Score, VerdictName
from qtool.records.presentation import Presented
from qtool.records.ship_rule import TaskVerdict, overall, tier_of
from qtool.records.task import Tier


@dataclass(frozen=True, slots=True)
class Answers:
    """One task's answers on one side: by whom, under which metric, with the margin they were made for, if any; `chat`
    says whether they were asked through a chat template, None where a log does not."""

    source: str
    task: str
    metric_name: str
    metric: Metric
    rows: tuple[ItemResult, ...]
    margin_points: float | None = None
    chat: bool | None = None
    chance: float | None = None
    base_digest: str = ""
    tokenizer_digest: str = ""
    tier: Tier = "critical"
    cluster: str | None = None
    margin_percent: float | None = None
    repeats: int = 1
    compared: Comparison | None = None
    run_digest: str = ""

    def history(
        self, baseline: "Answers", margin_points: float, items: int, margin_percent: float | None
    ) -> tuple[Look, ...]:
        """Looks at these very answers that were had before: the same verdict is given here."""
        known = self.compared
        same = known is not None and known.baseline_digest == baseline.run_digest != ""
        if known is None or not same or self.margin_points != margin_points or not known.history:
            return ()
        if self.margin_percent != margin_percent:
            return ()
        return known.history if known.history[-1].items == items else ()


@dataclass(frozen=True, slots=True)
class ComparedTask:
    """One task on both sides, over the items that both answered."""

    task: str
    baseline: Score
    variant: Score
    comparison: Comparison
    churn: Churn


@dataclass(frozen=True, slots=True, repr=False)
class Compared(Presented):
    """All tasks that both sides have; `only_one_side` names the others."""

    SHOWN: ClassVar[tuple[str, ...]] = ("overall",)

    tasks: tuple[ComparedTask, ...]
    only_one_side: tuple[str, ...]
    overall: VerdictName
    worse: tuple[WorseTask, ...]
    pooled: Pooled | None = None

    def table(self) -> str:
        """Two lines a task, and the verdict over all."""
        return render(self)


def compare(
    baseline: Path, variant: Path, *, margin_points: float | None = None, metric: str | None = None,
    log_filter: str | None = None, margin_percent: float | None = None,
) -> Compared:  # fmt: skip
    """`variant` against `baseline`, task by task. Raises MismatchError where they have no task or items in common."""
    for value, unit in ((margin_points, "points"), (margin_percent, "%")):
        if value is not None and not 0 < value <= 100:
            raise PlanError([f"a margin of {value} {unit}; give more than 0 and at most 100"])
    before, after = (read_side(path, metric=metric, log_filter=log_filter) for path in (baseline, variant))
    shared = [task for task in before if task in after]
    if not shared:
        raise MismatchError(
            f"{baseline} and {variant} have no task in common: {', '.join(before)} against {', '.join(after)}"
        )
    compared = tuple(_compare(before[task], after[task], margin_points, margin_percent) for task in shared)
    verdicts = {each.task: each.comparison.verdict for each in compared}
    sides = before | after
    return Compared(
        tasks=compared,
        only_one_side=tuple(sorted(set(before) ^ set(after))),
        overall=overall(TaskVerdict(task, verdicts.get(task), sides[task].tier) for task in sides),
        worse=worse_tasks({each.task: each.comparison.p_worse for each in compared}),
        pooled=pool([(each.variant, each.comparison, each.churn) for each in compared]),
    )


def read_side(path: Path, *, metric: str | None = None, log_filter: str | None = None) -> dict[str, Answers]:
    """The answers of every task in `path`: our evaluations, or what lm-eval, nel or inspect_ai left."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    ours = results.read_all(path) if path.is_dir() else ()
    if ours:
        return {evaluation.task: _ours(path, evaluation) for evaluation in ours}
    logs = read_runs(path, metric=metric, log_filter=log_filter)
    return {
        task: Answers(str(path), task, log.metric, LoggedMetric(binary=log.binary), log.rows)
        for task, log in logs.items()
    }


def render(found: Compared) -> str:
    """The comparison as text for a terminal."""
    lines = []
    for each in found.tasks:
        flips = f"{each.churn.harmful} down, {each.churn.beneficial} up, {each.churn.wrong_to_other_wrong} other"
        values = f"{each.baseline.value:.4f} -> {each.variant.value:.4f}"
        lines.append(f"{each.task} ({each.variant.metric}, {each.variant.items:,} items): {values}; flips: {flips}")
        lines.append(f"  {each.comparison.verdict}: {each.comparison.reason}")
    if found.only_one_side:
        lines.append(f"only on one side: {', '.join(found.only_one_side)}")
    if found.worse:
        named = ", ".join(f"{worse.task} (p = {worse.p_holm:.2g})" for worse in found.worse)
        lines.append(f"got worse, after Holm's correction: {named}")
    if found.pooled is not None:
        lines.append(sentence(found.pooled))
    lines.append(f"overall: {found.overall}")
    return "\n".join(lines)


def _ours(path: Path, evaluation: Evaluation) -> Answers:
    _, answered = results.read_finished(path, evaluation.task)
    return Answers(
        source=evaluation.variant,
        task=evaluation.task,
        metric_name=evaluation.score.metric,
        metric=_metric(evaluation.score.metric, answered.values()),
        rows=tuple(answered.values()),
        margin_points=evaluation.margin_points,
        chat=evaluation.chat,
        chance=evaluation.chance,
        base_digest=evaluation.base_digest,
        tokenizer_digest=evaluation.tokenizer_digest,
        tier=tier_of(evaluation.tier, critical=evaluation.critical),
        cluster=evaluation.cluster,
        margin_percent=evaluation.margin_percent,
        repeats=evaluation.repeats,
        compared=evaluation.comparison,
        run_digest=evaluation.run_digest,
    )


def _metric(name: str, rows: Iterable[ItemResult]) -> Metric:
    """The metric called `name`; one that only a harness knows has left its values in the rows."""
    if name in catalog.names(METRICS) or name.startswith(FOREIGN_METRIC):
        return load_metric(name)
    return LoggedMetric(binary=all(row.score in (0.0, 1.0) for row in rows))


def _compare(
    before: Answers, after: Answers, margin_points: float | None, margin_percent: float | None
) -> ComparedTask:
    refuse_other_base((before.source, before.base_digest), (after.source, after.base_digest))
    if before.tokenizer_digest and after.tokenizer_digest and before.tokenizer_digest != after.tokenizer_digest:
        raise MismatchError(
            f"{after.task}: {before.source} has another tokenizer than {after.source}; compare variants of one model"
        )
    if before.metric_name != after.metric_name:
        raise MismatchError(
            f"{after.task}: scored by {before.metric_name} on one side and {after.metric_name} on the other; "
            "name one with --metric"
        )
    if before.chat is not None and after.chat is not None and before.chat != after.chat:
        raise MismatchError(
            f"{after.task}: one side was asked through the chat template and the other with plain prompts; evaluate "
            "both with --chat or both with --no-chat"
        )
    old, new = _common(before, after)
    points = margin_points or after.margin_points or before.margin_points or DEFAULT_MARGIN_POINTS
    if margin_points is None and margin_percent is None:
        margin_percent = after.margin_percent
    history = after.history(before, points, len(new), margin_percent)
    terms = paired.Terms(
        metric_name=after.metric_name,
        metric=after.metric,
        margin_points=points,
        margin_percent=margin_percent,
        cluster=after.cluster,
        repeats=after.repeats,
        level=history[-1].level if history else LEVEL,
        history=history,
    )
    return ComparedTask(
        task=after.task,
        baseline=metric_scale.score_of(terms.metric_name, terms.metric, old),
        variant=metric_scale.score_of(terms.metric_name, terms.metric, new),
        comparison=base_check.checked(
            _untimed(paired.compare(before.source, old, new, terms, seconds_per_item=0.0)),
            terms.metric_name,
            terms.metric,
            old,
            chance=before.chance,
        ),
        churn=paired.churn(old, new, terms, floor=None),
    )


def _common(before: Answers, after: Answers) -> tuple[list[ItemResult], list[ItemResult]]:
    """Rows of the items both sides answered, in one order. Raises where an id stands for different items."""
    known: Mapping[str, ItemResult] = {row.id: row for row in before.rows}
    new = [row for row in after.rows if row.id in known]
    if not new:
        raise MismatchError(f"{after.task}: {before.source} and {after.source} answered no item in common")
    old = [known[row.id] for row in new]
    changed: Sequence[str] = [a.id for a, b in zip(old, new, strict=True) if a.prompt_digest != b.prompt_digest]
    if changed:
        raise MismatchError(
            f"{after.task}: item {changed[0]!r} (and {len(changed) - 1} more) is another on each side; "
            "both must come from the same version of the task"
        )
    return old, new


def _untimed(comparison: Comparison) -> Comparison:
    """Logs say nothing of how long an item took."""
    return replace(comparison, minutes_to_decide=None, reason=comparison.reason.replace(" (0 seconds more)", ""))
