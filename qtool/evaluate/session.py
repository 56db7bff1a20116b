"""What `qtool eval` is asked for: from names to verdicts, with the baseline's answers, in one look or several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, cast

from qtool.errors import MismatchError, PlanError
from qtool.evaluate.asking.model import KeptOpen, SayingNotes, identify, open_place
from qtool.evaluate.asking.questions import Asked
from qtool.evaluate.asking.subject import DEFAULTS, Opener, Settings, refuse_other_base
from qtool.evaluate.items.tasks import all_tasks, load_task
from qtool.evaluate.lm_eval.harness import PREFIX, HarnessOrder, check, evaluate_harness
from qtool.evaluate.stage import ask_for, evaluate_asked
from qtool.evaluate.verdicts import power, sequential
from qtool.evaluate.verdicts.pooled import pool
from qtool.evaluate.verdicts.statistics import holm
from qtool.progress import Progress
from qtool.records.evaluation import Evaluation, Pooled, VerdictName
from qtool.records.place import Place, Server
from qtool.records.presentation import Presented
from qtool.records.ship_rule import overall, verdict_of
from qtool.records.task import TaskSpec, Tier
from qtool.store import layout

DEFAULT_MARGIN_POINTS = 2.0
_WORSE = 0.05

Run = Callable[[Place, Path, Path | None], tuple[Evaluation, ...]]  # model, output, baseline's evaluations


@dataclass(frozen=True, slots=True)
class Order:
    """One call of `qtool eval`. `until_decided` is the largest number of items a task may grow to."""

    model: Place
    tasks: tuple[str, ...]
    output: Path | None = None
    baseline: Place | None = None
    limit: int | None = None
    margin_points: float | None = None
    data: str | None = None
    evals_dir: Path | None = None
    until_decided: int | None = None
    unsafe_code: bool = False
    settings: Settings = DEFAULTS
    margin_percent: float | None = None
    tiers: Mapping[str, str] = field(default_factory=dict)
    base_scores: Mapping[str, float] = field(default_factory=dict)
    repeats: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class WorseTask:
    """A task that got worse, with its p-value after Holm's correction over all tasks compared."""

    task: str
    p_holm: float


@dataclass(frozen=True, slots=True, repr=False)
class Findings(Presented):
    """All that was found. `overall` is the ship rule's verdict over all tasks, None without a baseline."""

    SHOWN: ClassVar[tuple[str, ...]] = ("overall", "output")

    output: str
    evaluations: tuple[Evaluation, ...]
    overall: VerdictName | None
    worse: tuple[WorseTask, ...]
    pooled: Pooled | None = None


def fulfil(order: Order, progress: Progress, *, opener: Opener | None = None) -> Findings:
    """Evaluates as ordered. Everything that can be wrong without a model is refused first."""
    own, harness = _split(order)
    specs = _specs(own) if own.tasks or harness is None else ()
    if harness is not None:
        check(harness)
    asked = tuple(ask_for(spec, count=order.limit, data=order.data, margin=order.margin_points) for spec in specs)
    output = order.output or default_output(order.model)
    _check_baseline_model(order, output)
    if order.baseline is not None and order.until_decided is None:
        for line in filter(None, [power.told(_questions(asked))]):
            progress.note(line)
    keeper = KeptOpen(SayingNotes(opener or open_place, progress))
    try:
        evaluations = _looks(order, specs, asked, output, progress, keeper) if specs else ()
        if harness is not None:
            evaluations += _harness(order, harness, output, progress, keeper)
    finally:
        keeper.close()
    return Findings(
        output=str(output),
        evaluations=evaluations,
        overall=None if order.baseline is None else overall(map(verdict_of, evaluations)),
        worse=worse(evaluations),
        pooled=pool(
            [(each.score, each.comparison, each.churn) for each in evaluations if each.comparison and each.churn]
        ),
    )


def _questions(asked: Sequence[Asked]) -> list[power.Question]:
    """What the comparison will ask, without running text, whose changes are not counted in items."""
    return [
        power.Question(len(each.items), (each.task.margin_percent or each.margin_points) / 100)
        for each in asked
        if each.task.scorer != "rolling"
    ]


def default_output(model: Place) -> Path:
    """`runs/<run>/evaluations/<v>` for a model in `runs/<run>/variants/<v>`, else `evaluations/<name>`."""
    if isinstance(model, Server):
        return layout.RunFolder(Path()).evaluations(model.name)
    run = layout.run_of(model) or layout.RunFolder(Path())
    return run.evaluations(model.resolve().name)


def is_model(place: Place) -> bool:
    """Whether `place` holds a model or is a server's address, as opposed to finished evaluations."""
    return isinstance(place, Server) or layout.is_model_folder(place)


def worse(evaluations: Sequence[Evaluation]) -> tuple[WorseTask, ...]:
    """Tasks that got worse at 5 % after Holm's correction: a claim about which, not about whether to ship."""
    return worse_tasks({each.task: each.comparison.p_worse for each in evaluations if each.comparison is not None})


def worse_tasks(p_values: Mapping[str, float]) -> tuple[WorseTask, ...]:
    """Those of the tasks with these p-values of "got worse" that are still below 5 % after Holm's correction."""
    adjusted = holm(list(p_values.values()))
    return tuple(WorseTask(task, p) for task, p in zip(p_values, adjusted, strict=True) if p < _WORSE)


def _split(order: Order) -> tuple[Order, HarnessOrder | None]:
    """Our own tasks, and those named `lm_eval:NAME`."""
    names = tuple(name.removeprefix(PREFIX) for name in order.tasks if name.startswith(PREFIX))
    if not names:
        return order, None
    points = DEFAULT_MARGIN_POINTS if order.margin_points is None else order.margin_points
    if not 0 < points <= 100:
        raise PlanError([f"a margin of {points} points; give more than 0 and at most 100"])
    if order.until_decided is not None:
        raise PlanError(["--until-decided: the harness's tasks have a fixed number of documents; leave it out"])
    own = replace(order, tasks=tuple(name for name in order.tasks if not name.startswith(PREFIX)))
    return own, HarnessOrder(names, order.limit, points, order.evals_dir)


def _beside_baseline(order: Order, output: Path, run: Run) -> tuple[Evaluation, ...]:
    """`run` on the variant beside the baseline's evaluations; first on the baseline where that is a model."""
    baseline = order.baseline
    if baseline is None:
        return run(order.model, output, None)
    if isinstance(baseline, Server) or is_model(baseline):
        folder = default_output(baseline)
        run(baseline, folder, None)
        baseline = folder
    return run(order.model, output, baseline)


def _harness(
    order: Order, harness: HarnessOrder, output: Path, progress: Progress, keeper: KeptOpen
) -> tuple[Evaluation, ...]:
    def run(model: Place, into: Path, baseline: Path | None) -> tuple[Evaluation, ...]:
        return evaluate_harness(
            model, harness, into, baseline=baseline, progress=progress, settings=order.settings, opener=keeper.open
        )

    return _beside_baseline(order, output, run)


def _specs(order: Order) -> tuple[TaskSpec, ...]:
    if not order.tasks:
        raise PlanError(["no task was named; give --task NAME (repeatable), or --task all"])
    if "all" in order.tasks:
        specs: tuple[TaskSpec, ...] = all_tasks(order.evals_dir)
    else:
        specs = tuple(load_task(name, evals_dir=order.evals_dir) for name in dict.fromkeys(order.tasks))
    if order.data is not None and len(specs) != 1:
        raise PlanError([f"--data {order.data}: one file is the data of one task, {len(specs)} were named"])
    specs = tuple(_as_ordered(spec, order) for spec in specs)
    for option, said in (("--tier", order.tiers), ("--base-score", order.base_scores)):
        if unknown := sorted(set(said) - {spec.name for spec in specs}):
            raise PlanError(
                [f"{option} {unknown[0]}: no such task is asked; asked are {', '.join(s.name for s in specs)}"]
            )
    if order.unsafe_code:
        specs = tuple(replace(spec, metric_options={**spec.metric_options, "sandbox": "none"}) for spec in specs)
    return specs


def _as_ordered(spec: TaskSpec, order: Order) -> TaskSpec:
    """`spec` with what was said of it on the command line; a margin in points replaces one in percent."""
    tier = order.tiers.get(spec.name, spec.tier)
    if tier not in (None, "critical", "supporting", "advisory"):
        raise PlanError([f"--tier {spec.name}={tier}: give critical, supporting or advisory"])
    percent = spec.margin_percent if order.margin_points is None else None
    return replace(
        spec,
        tier=cast(Tier | None, tier),
        base_score=order.base_scores.get(spec.name, spec.base_score),
        repeats=spec.repeats if order.repeats is None else order.repeats,
        temperature=spec.temperature if order.temperature is None else order.temperature,
        margin_percent=percent if order.margin_percent is None else order.margin_percent,
    )


def _check_baseline_model(order: Order, output: Path) -> None:
    """Raises where the two models cannot be compared, before either is loaded."""
    if order.baseline is None:
        if order.until_decided is not None:
            raise PlanError(["--until-decided: there is nothing to decide without --baseline"])
        return
    if not is_model(order.baseline):
        return
    if default_output(order.baseline).resolve() == output.resolve():
        raise PlanError([f"{order.baseline}: baseline and variant would both write to {output}; give another -o"])
    baseline, variant = (identify(model, order.settings) for model in (order.baseline, order.model))
    refuse_other_base((baseline.name, baseline.base_digest), (variant.name, variant.base_digest))
    if baseline.tokenizer_digest != variant.tokenizer_digest:
        raise MismatchError(
            f"{order.baseline}: {baseline.name} has another tokenizer than {variant.name}; a paired comparison needs "
            "variants of one model"
        )


def _looks(
    order: Order,
    specs: Sequence[TaskSpec],
    asked: tuple[Asked, ...],
    output: Path,
    progress: Progress,
    keeper: KeptOpen,
) -> tuple[Evaluation, ...]:
    """One look, or several at a growing number of items until each task is decided or its limit reached."""
    if order.until_decided is None or order.baseline is None:
        return _look(order, asked, output, progress, keeper)
    decided: dict[str, Evaluation] = {}
    plans = {each.task.name: _sizes(each, order) for each in asked}
    for look in range(max(map(len, plans.values()))):
        open_tasks = [
            replace(
                ask_for(spec, count=plans[spec.name][look], data=order.data, margin=order.margin_points),
                until=plans[spec.name][-1] * spec.repeats,
            )
            for spec in specs
            if look < len(plans[spec.name]) and not _is_decided(decided.get(spec.name))
        ]
        for each in _look(order, tuple(open_tasks), output, progress, keeper) if open_tasks else ():
            decided[each.task] = each
    return tuple(decided[spec.name] for spec in specs)


def _sizes(asked: Asked, order: Order) -> tuple[int, ...]:
    first, limit = len(asked.items) // asked.task.repeats, order.until_decided or 0
    if limit < first:
        raise PlanError([f"--until-decided {limit}: task {asked.task.name} begins with {first} items already"])
    if asked.task.generator is None:
        limit = len(ask_for(asked.task, count=limit, data=order.data).items) // asked.task.repeats
    return sequential.look_sizes(first, limit)


def _look(
    order: Order, asked: tuple[Asked, ...], output: Path, progress: Progress, keeper: KeptOpen
) -> tuple[Evaluation, ...]:
    def run(model: Place, into: Path, baseline: Path | None) -> tuple[Evaluation, ...]:
        return evaluate_asked(
            model, asked, into, baseline=baseline, progress=progress, settings=order.settings, opener=keeper.open
        )

    return _beside_baseline(order, output, run)


def _is_decided(evaluation: Evaluation | None) -> bool:
    """Whether more items would change nothing: the verdict is there, or the base cannot do the task."""
    if evaluation is None or evaluation.comparison is None:
        return False
    return evaluation.comparison.verdict != "UNDECIDED" or evaluation.comparison.base_fails
