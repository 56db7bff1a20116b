"""The evaluate stage: asks a model every item of every task once, then compares with the baseline's answers.

Everything that can be wrong without a model is checked before one is loaded; what an earlier run answered, finished or
killed, is not asked again; the statistics are always computed anew, since they cost next to nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qtool.engine.rounded_copy import RoundedCopy
from qtool.errors import MismatchError, NumericError, PlanError
from qtool.evaluate import results
from qtool.evaluate.asking import agreement
from qtool.evaluate.asking.model import SayingNotes, identify, lazily, open_place
from qtool.evaluate.asking.noise_floor import MOST_ITEMS, measure_floor, read_floor, write_floor
from qtool.evaluate.asking.questions import Asked, Work, ask, context_of, differs_in, timing_of, work_on
from qtool.evaluate.asking.rounding_noise import measure_noise
from qtool.evaluate.asking.subject import DEFAULTS, Opener, Settings, Subject, refuse_other_base, settled
from qtool.evaluate.contract import Question
from qtool.evaluate.items import prompts, tasks
from qtool.evaluate.lengths import fitting, widened
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.scorers import load_scorer
from qtool.evaluate.verdicts.conclude import conclude
from qtool.models.checkpoint import open_checkpoint
from qtool.progress import Progress
from qtool.records.evaluation import Evaluation, ItemResult
from qtool.records.place import Place, Server
from qtool.records.task import REPEATED, Item, TaskSpec
from qtool.store.run_directory import locked

_REPEATED = 0.6  # of the extra time goes into asking again, the rest into reading with rounded weights
_LEAST_FLOOR_SECONDS = 0.5  # a short run's share would be too little to say anything, and nobody waits for this


def ask_for(task: TaskSpec, *, count: int | None = None, data: str | None = None, margin: float | None = None) -> Asked:
    """`task` with its items read or made. Raises PlanError for a margin that is no drop."""
    points = task.margin_points if margin is None else margin
    if not 0 < points <= 100:
        raise PlanError([f"task {task.name}: a margin of {points} points; give more than 0 and at most 100"])
    prepare = getattr(load_metric(task.metric), "prepare", None)
    if prepare is not None:
        prepare(task)
    items = tasks.load_items(task, count=count, data=data)
    shots = tasks.load_shots(task)
    if problems := tasks.task_problems(task):  # of what a plan or the command line set
        raise PlanError([f"task {task.name}: {problem}" for problem in problems])
    golden = task.golden_first_prompt
    if golden is not None and data is None and prompts.first_prompt(task, items, shots) != golden:
        raise PlanError(
            [f"task {task.name}: its first prompt is no longer the golden one; raise the version, pin the new prompt"]
        )
    return Asked(task=task, items=_repeated(items, task.repeats), margin_points=points, shots=shots)


def _repeated(items: Sequence[Item], repeats: int) -> tuple[Item, ...]:
    """Each item `repeats` times in a row, each time drawn with another seed, which the id gives."""
    if repeats < 2:
        return tuple(items)
    return tuple(
        replace(item, id=f"{item.id}#{number}", slices=(*item.slices, (REPEATED, item.id)))
        for item in items
        for number in range(1, repeats + 1)
    )


def evaluate_asked(
    variant: Place,
    asked: Sequence[Asked],
    output: Path,
    *,
    baseline: Path | None,
    progress: Progress,
    settings: Settings = DEFAULTS,
    opener: Opener | None = None,
) -> tuple[Evaluation, ...]:
    """One finished evaluation for each of `asked`, in `output`; the model is opened at most once, for all of them.

    `baseline` is the folder of the baseline's finished evaluations. Raises MismatchError before any model is loaded
    where the baseline answered other items, another version of a task, or has another tokenizer.
    """
    subject = identify(variant, settings)
    settings = settled(settings, subject)
    opener = opener or SayingNotes(open_place, progress)
    wide = widened(settings, subject, asked)
    with locked(output / ".lock", holds=str(output)), lazily(variant, wide, opener) as model:
        asked = [fitting(each, model.language(), wide, progress) if each.task.length_slice else each for each in asked]
        if baseline is not None:
            for each in asked:
                _check_baseline(subject, each, baseline, settings)
        rounded = RoundedCopy(variant, settings.device)
        works = (
            work_on(
                subject,
                each,
                output,
                model,
                settings=wide if each.task.length_slice else settings,
                progress=progress,
                rounded=rounded,
            )
            for each in asked
        )
        try:
            return tuple(_evaluate_one(work, baseline) for work in works)
        except NumericError:
            if not isinstance(subject.place, Server):
                open_checkpoint(subject.place).refuse_nonfinite()  # says which tensor it is
            raise


def _check_baseline(subject: Subject, asked: Asked, baseline: Path, settings: Settings) -> None:
    task = asked.task
    evaluation, answered = results.read_finished(baseline, task.name)
    before = f"{baseline} ({evaluation.variant})"
    refuse_other_base((before, evaluation.base_digest), (subject.name, subject.base_digest))
    if evaluation.tokenizer_digest != subject.tokenizer_digest:
        raise MismatchError(
            f"{baseline}: {evaluation.variant} has another tokenizer than {subject.name}; a paired comparison needs "
            "variants of one model"
        )
    if evaluation.task_digest != tasks.task_digest(task):
        raise MismatchError(
            f"{baseline}: {task.name} was evaluated by another version of the task; evaluate the baseline again"
        )
    if task.scorer != "rolling" and evaluation.chat != bool(settings.chat):
        ways = {True: "through the chat template", False: "with plain prompts"}
        raise MismatchError(
            f"{baseline}: {task.name} was asked {ways[evaluation.chat]}, and would be asked "
            f"{ways[not evaluation.chat]} now; evaluate both with --{'chat' if evaluation.chat else 'no-chat'}"
        )
    missing = [item.id for item in asked.items if item.id not in answered]
    if missing:
        raise MismatchError(
            f"{baseline}: {task.name}: the baseline answered {len(answered)} items, {len(missing)} of the "
            f"{len(asked.items)} asked for are not among them, such as {missing[0]!r}; evaluate it on as many"
        )


def _evaluate_one(work: Work, baseline: Path | None) -> Evaluation:
    task = work.asked.task
    chat = work.model.language() if work.settings.chat and task.scorer != "rolling" else None
    questions = prompts.questions(task, work.asked.items, shots=work.asked.shots, chat=chat)
    known = results.reusable(work.output, task.name, work.digest, questions)
    pending = [question for question in questions if question.item.id not in known]
    if known:
        work.progress.note(f"{work.subject.name}: {task.name}: {len(known)} of {len(questions)} items already answered")
    started_s = time.monotonic()
    if pending:
        ask(pending, known, work)
    seconds = time.monotonic() - started_s
    rows = [known[question.item.id] for question in questions]
    if baseline is None and work.settings.floor_share > 0:
        _measure_baseline(questions, rows, work, seconds)
    before = results.earlier_timing(work.output, task.name, work.digest, len(rows))
    timing = timing_of(rows, asked_now=len(pending), seconds=seconds, together=work.settings.in_flight, before=before)
    return conclude(work, rows, baseline=baseline, timing=timing)


def _measure_baseline(questions: Sequence[Question], rows: Sequence[ItemResult], work: Work, seconds: float) -> None:
    """What every variant will be held against, unless it is there already: the baseline's own noise, samples of its
    distribution, and how far rounding its weights moves its margins."""
    task = work.asked.task.name
    extra = work.settings.floor_share * max(seconds, _told_seconds(rows, work))
    floor = read_floor(work.output, task, work.digest)
    if floor is None or not floor.is_enough_for(len(rows)):
        with work.progress.track(f"{task}: noise floor", min(MOST_ITEMS, len(rows)), "items") as advance:
            floor = measure_floor(
                questions,
                rows,
                load_scorer(work.asked.task.scorer),
                context_of(work),
                differs=differs_in(work, {item.id: item for item in work.asked.items}),
                seconds=max(_LEAST_FLOOR_SECONDS, _REPEATED * extra),
                advance=advance,
            )
        write_floor(work.output, task, floor)
    if work.subject.remote:
        return  # a server gives no log-probabilities of given text, and has no weights here to round
    if not agreement.read_samples(work.output, task, work.digest):
        drawn = agreement.draw(questions, context_of(work), seed=work.settings.seed)
        agreement.write_samples(work.output, task, agreement.Samples(work.digest, drawn))
    if results.read_noise(work.output, task, work.digest) is None:
        with work.progress.track(f"{task}: rounding noise", None, "items"):
            noise = measure_noise(questions, rows, work, seconds=(1 - _REPEATED) * extra)
            results.write_noise(work.output, task, noise)


def _told_seconds(rows: Sequence[ItemResult], work: Work) -> float:
    """How long the answers took by their own latencies: of a resumed run only the rest was timed."""
    return sum(row.latency_ms for row in rows) / 1000 / work.settings.in_flight
