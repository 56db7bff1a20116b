"""Any task of lm-evaluation-harness on our engine (`--task lm_eval:NAME`), its samples in our statistics.

The harness asks through its own `LM` interface, so prompts, few-shot examples, filters and metrics are its own; what it
returns for each document becomes an item like any other, with the paired comparison and the verdict.
"""

import contextlib
import functools
import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtool import catalog
from qtool.engine.rounded_copy import RoundedCopy
from qtool.errors import DataError, UnknownName
from qtool.evaluate import results
from qtool.evaluate.asking.model import LazyModel, identify, lazily
from qtool.evaluate.asking.questions import Asked, Work, timing_of
from qtool.evaluate.asking.subject import Opener, Settings, Subject, refuse_other_base, settled
from qtool.evaluate.lm_eval import sample_log
from qtool.evaluate.lm_eval.harness_model import make_model
from qtool.evaluate.verdicts.conclude import conclude
from qtool.progress import Progress
from qtool.records.evaluation import Evaluation, ItemResult
from qtool.records.place import Place
from qtool.records.task import Item, TaskSpec
from qtool.store.digest import record_digest
from qtool.store.run_directory import locked

PREFIX = "lm_eval:"


@dataclass(frozen=True, slots=True)
class HarnessOrder:
    """Which of the harness's tasks, how many documents of each, from which further folder of task files."""

    names: tuple[str, ...]
    limit: int | None = None
    margin_points: float = 2.0
    include: Path | None = None


def check(order: HarnessOrder) -> None:
    """Raises MissingPackage without the harness, UnknownName with the nearest names for a task it does not have."""
    known = _manager(order).all_tasks
    for name in order.names:
        if name not in known:
            raise UnknownName("lm_eval task", name, known)


def evaluate_harness(
    place: Place,
    order: HarnessOrder,
    output: Path,
    *,
    baseline: Path | None,
    progress: Progress,
    settings: Settings,
    opener: Opener,
) -> tuple[Evaluation, ...]:
    """One finished evaluation for each task the names stand for (a group gives several), written to `output`."""
    subject = identify(place, settings)
    # the name promises the harness's own way of asking, which is plain unless told otherwise
    settings = settled(replace(settings, chat=bool(settings.chat)), subject)
    if baseline is not None:
        for evaluation in results.read_all(baseline):
            before = f"{baseline} ({evaluation.variant})"
            refuse_other_base((before, evaluation.base_digest), (subject.name, subject.base_digest))
    with locked(output / ".lock", holds=str(output)), lazily(place, settings, opener) as model:
        found: list[Evaluation] = []
        for name in order.names:
            found += _evaluate_name(name, order, subject, output, baseline, _Means(model, settings, progress))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Means:
    model: LazyModel
    settings: Settings
    progress: Progress


def _evaluate_name(
    name: str, order: HarnessOrder, subject: Subject, output: Path, baseline: Path | None, means: _Means
) -> list[Evaluation]:
    digest = _digest(name, order, subject, means.settings)
    started_s = time.monotonic()
    samples = _kept(output, name, digest)
    if samples is None:
        with means.progress.track(f"{subject.name}: {PREFIX}{name}", None, "items"):
            samples = {task: _rows(lines, task, digest) for task, lines in _run(name, order, means).items()}
    seconds = time.monotonic() - started_s
    found = []
    for task, rows in samples.items():
        work = _work(task, rows, order, subject, output, means, digest)
        before = results.earlier_timing(output, work.asked.task.name, digest, len(rows))
        timing = timing_of(rows, asked_now=len(rows), seconds=seconds / len(samples), together=1, before=before)
        found.append(conclude(work, rows, baseline=baseline, timing=timing))
    return found


def _run(name: str, order: HarnessOrder, means: _Means) -> Mapping[str, Sequence[sample_log.Line]]:
    """The harness's samples of each task that `name` stands for."""
    lm_eval = importlib.import_module("lm_eval")
    engine, language = means.model.get()
    model = make_model(engine, language, in_flight=means.settings.in_flight)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the result alone
            found = lm_eval.simple_evaluate(
                model=model,
                tasks=[name],
                limit=order.limit,
                log_samples=True,
                bootstrap_iters=0,
                task_manager=_manager(order),
                apply_chat_template=bool(means.settings.chat),
                random_seed=means.settings.seed,
                numpy_random_seed=means.settings.seed,
                torch_random_seed=means.settings.seed,
                fewshot_random_seed=means.settings.seed,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{PREFIX}{name}: the harness could not run it: {reason}") from error
    samples: Mapping[str, Sequence[sample_log.Line]] = (found or {}).get("samples", {})
    if not samples:
        raise DataError(f"{PREFIX}{name}: the harness returned no samples")
    return samples


def _rows(lines: Sequence[sample_log.Line], task: str, digest: str) -> list[ItemResult]:
    log = sample_log.rows_of([(number, line) for number, line in enumerate(lines, start=1)], where=f"{PREFIX}{task}")
    return [
        replace(row, run_digest=digest, prompt=_prompt(line), notes=(("metric", log.metric),))
        for row, line in zip(log.rows, sample_log.of_filter(lines, None), strict=True)
    ]


def _kept(output: Path, name: str, digest: str) -> dict[str, list[ItemResult]] | None:
    """Rows of an earlier run of this very model, task and settings."""
    if not results.manifest_path(output, _file_name(name)).is_file():
        return None
    evaluation, rows = results.read_finished(output, _file_name(name))
    return {name: list(rows.values())} if evaluation.run_digest == digest else None


def _work(
    task: str,
    rows: Sequence[ItemResult],
    order: HarnessOrder,
    subject: Subject,
    output: Path,
    means: _Means,
    digest: str,
) -> Work:
    binary = all(row.score in (0.0, 1.0) for row in rows)
    spec = TaskSpec(
        name=_file_name(task),
        version=1,
        description=f"{task} of lm-evaluation-harness",
        licence="",
        prompt="",
        scorer="generation",
        metric=dict(rows[0].notes)["metric"],
        extract="text",
        margin_points=order.margin_points,
        items=len(rows),
        seed=means.settings.seed,
        max_new_tokens=1,
    )
    items = tuple(Item(id=row.id, fields=(), answer=row.target, target=row.target) for row in rows)
    return Work(
        subject=subject,
        asked=Asked(spec, items, order.margin_points),
        output=output,
        model=means.model,
        settings=means.settings,
        progress=means.progress,
        metric=sample_log.LoggedMetric(binary=binary),
        digest=digest,
        rounded=RoundedCopy(subject.place, means.settings.device),
    )


def _digest(name: str, order: HarnessOrder, subject: Subject, settings: Settings) -> str:
    from importlib.metadata import version

    return record_digest(
        [subject.weights_digest, subject.tokenizer_digest, name, order.limit, version("lm_eval"), settings.chat,
         settings.backend, settings.dtype, settings.device, settings.seed]
    )  # fmt: skip


def _manager(order: HarnessOrder) -> Any:
    catalog.require("lm_eval", needed_by=f"--task {PREFIX}{order.names[0]}", extra="lm-eval")
    return _indexed(order.include, order.names)


@functools.cache
def _indexed(include: Path | None, names: tuple[str, ...]) -> Any:
    """The harness's index of tasks; its own thousands of files are read only where the user's folder is not enough."""
    make = importlib.import_module("lm_eval.tasks").TaskManager
    if include is not None:
        own = make(include_path=str(include), include_defaults=False)
        if all(name in own.all_tasks for name in names):
            return own
    return make(include_path=None if include is None else str(include))


def _file_name(task: str) -> str:
    return f"lm_eval-{task}"


def _prompt(line: sample_log.Line) -> str:
    """The first argument of the first request, which is the context."""
    arguments = line.get("arguments")
    while isinstance(arguments, Mapping) and arguments:
        arguments = next(iter(arguments.values()))
    while isinstance(arguments, list | tuple) and arguments:
        arguments = arguments[0]
    return arguments if isinstance(arguments, str) else ""
