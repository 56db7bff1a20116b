"""Asks the model what has not been answered yet and writes each answer down, graded, as soon as it is there."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qtool.engine.rounded_copy import RoundedCopy
from qtool.evaluate import results
from qtool.evaluate.asking.local import computed_in
from qtool.evaluate.asking.model import LazyModel
from qtool.evaluate.asking.noise_floor import likelihood_moved
from qtool.evaluate.asking.subject import Settings, Subject
from qtool.evaluate.contract import Answer, Context, Metric, Question
from qtool.evaluate.items import tasks
from qtool.evaluate.items.wording import as_chat, wording
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.scorers import load_scorer
from qtool.evaluate.verdicts import faults
from qtool.evaluate.verdicts.verdict import LEVEL
from qtool.models.tokenizer import refuse_beyond
from qtool.progress import Progress
from qtool.records.evaluation import ItemResult, TaskTiming
from qtool.records.place import Server
from qtool.records.quantile_rule import samples_needed
from qtool.records.task import Item, TaskSpec
from qtool.store.digest import record_digest

_GRADERS = 2
_DECIMALS = 4  # of margins in items.jsonl: a tenth of a thousandth of a nat is far below any engine's own noise


@dataclass(frozen=True, slots=True)
class Asked:
    """One task with its items, its worked examples and the drop that is accepted, in points.

    `level` is the one-sided level of the ship test, all its looks together; `until` the most items it may grow to, None
    where nobody has said.
    """

    task: TaskSpec
    items: tuple[Item, ...]
    margin_points: float
    shots: tuple[Item, ...] = ()
    level: float = LEVEL
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One task being put to one model: who, what, where to, and the digest of all that can change an answer."""

    subject: Subject
    asked: Asked
    output: Path
    model: LazyModel
    settings: Settings
    progress: Progress
    metric: Metric
    digest: str
    rounded: RoundedCopy


def work_on(
    subject: Subject,
    asked: Asked,
    output: Path,
    model: LazyModel,
    *,
    settings: Settings,
    progress: Progress,
    rounded: RoundedCopy,
) -> Work:
    """The work of putting `asked` to `subject`; `rounded` is one for all works on one model."""
    return Work(
        subject=subject,
        asked=asked,
        output=output,
        model=model,
        settings=settings,
        progress=progress,
        metric=load_metric(asked.task.metric),
        digest=run_digest(subject, asked, settings),
        rounded=rounded,
    )


def run_digest(subject: Subject, asked: Asked, settings: Settings) -> str:
    """Digest of all that can change an answer, the item itself apart."""
    dtype = computed_in(subject, settings)
    described: dict[str, object] = {
        "weights": subject.weights_digest,
        "tokenizer": subject.tokenizer_digest,
        "task": tasks.task_digest(asked.task),
        "shots": asked.shots,
        "settings": [settings.chat, settings.backend, dtype, settings.device, settings.context_tokens],
    }
    if asked.task.temperature:
        described["seed"] = settings.seed
    return record_digest(described)


def ask(pending: Sequence[Question], known: results.Answered, work: Work) -> None:
    """Puts every pending question to the model and adds its row to `known`, each on disk as soon as it is graded."""
    task, scorer, context = work.asked.task, load_scorer(work.asked.task.scorer), context_of(work)
    label = f"{work.subject.name}: {task.name}"
    _refuse_foreign_tokens(pending, context, work.subject)
    with (
        results.journal(work.output, task.name, known.values()) as journal,
        work.progress.track(label, len(pending), "items") as advance,
    ):
        for row in _graded(pending, scorer.ask(pending, context), work):
            journal.add(row)
            known[row.id] = row
            advance(1)


def _refuse_foreign_tokens(pending: Sequence[Question], context: Context, subject: Subject) -> None:
    """Raises MismatchError for a token that a local model has no row for; a server does not tell how many it has."""
    if isinstance(subject.place, Server):
        return
    vocabulary = context.engine.status().vocabulary
    for question in pending:
        where = f"{context.task.name}: item {question.item.id}"
        refuse_beyond(context.language.encode(question.prompt), vocabulary, where)


def context_of(work: Work) -> Context:
    """Engine and language of the work's model, opened now if they were not."""
    engine, language = work.model.get()
    task, chat = work.asked.task, language if work.settings.chat else None
    way = wording(task, chat)
    return Context(
        engine=engine,
        language=language,
        task=as_chat(task) if way == "chat" else task,
        in_flight=work.settings.in_flight,
        forcing=work.settings.forcing and not work.asked.task.temperature,
        seed=work.settings.seed,
        chat=way == "chat",
    )


def differs_in(work: Work, items: Mapping[str, Item]) -> Callable[[Answer, ItemResult], bool]:
    """Whether an answer asked for again would count as churn beside the row there is, as a variant's would."""
    task = work.asked.task

    def differs(answer: Answer, before: ItemResult) -> bool:
        if load_scorer(task.scorer).ANSWERS == "likelihood":
            return likelihood_moved(answer, before)
        if answer.text == before.output:
            return False
        grade = work.metric.grade(items[before.id], answer, task)
        return grade.score != before.score or (
            before.score != work.metric.PERFECT and grade.extracted != before.extracted
        )

    return differs


def timing_of(
    rows: Sequence[ItemResult], *, asked_now: int, seconds: float, together: int, before: TaskTiming | None
) -> TaskTiming:
    """Latency quantiles over the rows that were generated, where any were; wall time of this run, or of the earlier
    one where nothing was left to ask.

    Where a killed run left no time, it is told from the latencies of items of which `together` ran at once.
    """
    generated = [row.latency_ms for row in rows if not row.decided_by]
    shares = [row.latency_ms for row in rows if row.decided_by]
    latencies = generated or shares
    tokens = sum(row.output_tokens for row in rows)
    if asked_now < len(rows):
        told_s = (sum(generated) / together + sum(shares)) / 1000
        again_s = seconds / asked_now * len(rows) if asked_now else told_s
        seconds = before.seconds if before is not None and not asked_now else again_s
    return TaskTiming(
        item_ms_p50=_quantile(latencies, 0.5),
        item_ms_p95=_quantile(latencies, 0.95),
        seconds=seconds,
        output_tokens=tokens,
        tokens_per_second=tokens / seconds if seconds > 0 else 0.0,
        answer_seconds=sum(generated) / len(generated) / 1000 if generated else None,
    )


def _quantile(latencies_ms: Sequence[float], q: float) -> float | None:
    import numpy as np

    return float(np.quantile(latencies_ms, q)) if len(latencies_ms) >= samples_needed(q) else None


def _graded(pending: Sequence[Question], answers: Iterator[tuple[int, Answer]], work: Work) -> Iterator[ItemResult]:
    """Rows of the answers; slow metrics grade in threads, so that no item's clock runs while another is graded."""
    if not getattr(work.metric, "SLOW", False):
        yield from (_row(pending[index], answer, work) for index, answer in answers)
        return
    with ThreadPoolExecutor(max_workers=_GRADERS) as pool:
        grading: deque[Future[ItemResult]] = deque()
        for index, answer in answers:
            grading.append(pool.submit(_row, pending[index], answer, work))
            while grading and grading[0].done():
                yield grading.popleft().result()
        while grading:
            yield grading.popleft().result()


def _row(question: Question, answer: Answer, work: Work) -> ItemResult:
    item, task = question.item, work.asked.task
    answers = load_scorer(task.scorer).ANSWERS
    grade = work.metric.grade(item, answer, task)
    cut = (("prompt", "cut"),) if answer.prompt_cut else ()
    return ItemResult(
        id=item.id,
        prompt=question.prompt,
        output=answer.text,
        extracted=grade.extracted,
        target=item.target if answers != "likelihood" else "",
        score=grade.score,
        finish=answer.finish,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=len(answer.ids),
        latency_ms=round(answer.latency_ms, 3),
        slices=item.slices,
        output_logprob=round(sum(answer.logprobs), _DECIMALS) if answer.logprobs else None,
        output_ids=answer.ids,
        margins=tuple(round(margin, _DECIMALS) for margin in answer.margins),
        fault=faults.fault_of(answer, grade, generated=answers == "text"),
        notes=grade.notes + cut,
        prompt_digest=question.digest,
        run_digest=work.digest,
        decided_by=answer.decided_by,
        weight=item.weight,
        also=tuple((name, float(text in (item.target, *item.accepts))) for name, text in answer.chosen),
    )
