"""Finds, decodes and checks task files, and brings the items they ask for; no model is needed for any of it."""

import dataclasses
import random
from collections.abc import Iterable
from pathlib import Path

from qtool import catalog
from qtool.errors import DataError, PlanError, UnknownName
from qtool.evaluate.items import prompts, rows
from qtool.records.task import Item, TaskSpec
from qtool.store.codec import encode, read_toml
from qtool.store.digest import record_digest
from qtool.store.shipped import evals_folder

SCORERS = "qtool.evaluate.scorers"
METRICS = "qtool.evaluate.metrics"
READERS = "qtool.evaluate.readers"
GENERATORS = "qtool.data.generators"
FOREIGN_METRIC = "evaluate:"

READERS_VERSION = 2  # of `evaluate/answers`: what other readers graded is graded anew
_LATER_FIELDS: dict[str, object] = {
    "temperature": 0.0, "chat_max_new_tokens": None, "chat_stop": (), "chat_turns": (), "length_slice": None,
    "tier": None, "margin_percent": None, "base_score": None, "repeats": 1,
}  # fmt: skip
_NOT_IN_DIGEST = {
    "description": "", "licence": "", "margin_points": 0.0, "items": 0, "critical": True, "slices": (), "tier": None,
    "margin_percent": None, "base_score": None, "repeats": 1,
}  # fmt: skip


def task_names(evals_dir: Path | None = None) -> tuple[str, ...]:
    """Sorted names of all task files: the shipped ones and those of `evals_dir`."""
    return tuple(sorted(_files(evals_dir)))


def all_tasks(evals_dir: Path | None = None) -> tuple[TaskSpec, ...]:
    """What `--task all` stands for: every task whose items can be made or read without asking for a file or a hub, and
    that fits a short context."""
    loaded = (load_task(name, evals_dir=evals_dir) for name in task_names(evals_dir))
    return tuple(
        task for task in loaded if (task.generator is not None or task.data is not None) and task.length_slice is None
    )


def load_task(name_or_path: str, *, evals_dir: Path | None = None) -> TaskSpec:
    """The checked task; `data` paths in it are absolute.

    Raises UnknownName with the nearest names, PlanError with everything that is wrong in the file.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        files = _files(evals_dir)
        if name_or_path not in files:
            raise UnknownName("task", name_or_path, files)
        path = files[name_or_path]
    task = read_toml(TaskSpec, path)
    problems = [f"{path}: {problem}" for problem in task_problems(task)]
    if problems:
        raise PlanError(problems)
    return dataclasses.replace(task, data=_beside(path, task.data), few_shot_data=_beside(path, task.few_shot_data))


def load_items(task: TaskSpec, *, count: int | None = None, data: str | Path | None = None) -> tuple[Item, ...]:
    """The first `count` items (the task's own number if None) in the task's seeded order: a larger count begins alike.

    `data` replaces the task's source by a local file. A file with fewer rows gives all it has. Raises DataError where a
    generator has fewer distinct items, a row is malformed or an id occurs twice, PlanError where the template names a
    field the items do not have.
    """
    wanted = task.items if count is None else count
    if wanted < 1:
        raise PlanError([f"task {task.name}: {wanted} items were asked for; ask for at least 1"])
    items = _source(task, wanted, data)
    prompts.check_fields(task, items)
    return items


def load_shots(task: TaskSpec) -> tuple[Item, ...]:
    """The `few_shot` worked examples that stand before each prompt, never test items."""
    if task.few_shot == 0:
        return ()
    if task.generator is not None:
        from qtool.data.generators import draw

        return draw(task.generator, "calibration", task.seed, task.few_shot)
    if task.few_shot_data is None:
        raise PlanError(
            [f"task {task.name}: few_shot = {task.few_shot} needs few_shot_data, a file of worked examples"]
        )
    shots = rows.read_items(Path(task.few_shot_data), task)
    if len(shots) < task.few_shot:
        raise DataError(f"{task.few_shot_data}: {len(shots)} examples, few_shot = {task.few_shot} were asked for")
    return shots[: task.few_shot]


def task_digest(task: TaskSpec) -> str:
    """Digest of everything in the task that can change an answer or its score; not of margins, counts and wording."""
    plain = dataclasses.replace(
        task,
        metric_options={key: value for key, value in task.metric_options.items() if key != "sandbox"},
        data=Path(task.data).name if task.data else None,
        few_shot_data=Path(task.few_shot_data).name if task.few_shot_data else None,
        **_NOT_IN_DIGEST,  # type: ignore[arg-type]
    )
    described = encode(plain)
    assert isinstance(described, dict), "a record"
    for name, default in _LATER_FIELDS.items():  # tasks that leave them unset keep the digest they had before these
        if getattr(plain, name) == default:
            described.pop(name)
    described["readers"] = READERS_VERSION
    return record_digest(described)


def items_digest(items: Iterable[Item]) -> str:
    """Digest of items in their order."""
    return record_digest(list(items))


def _files(evals_dir: Path | None) -> dict[str, Path]:
    folders = [evals_folder()]
    if evals_dir is not None:
        if not evals_dir.is_dir():
            raise PlanError([f"{evals_dir}: no such folder of task files"])
        folders.append(evals_dir)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def task_problems(task: TaskSpec) -> list[str]:
    """What is wrong with `task`, each with its key; empty where nothing is."""
    found = []
    if not 0 < task.margin_points <= 100:
        found.append(f"margin_points: {task.margin_points} is not a drop in points; give more than 0 and at most 100")
    chat_tokens = task.chat_max_new_tokens
    for key, value in (
        ("items", task.items),
        ("max_new_tokens", task.max_new_tokens),
        ("chat_max_new_tokens", 1 if chat_tokens is None else chat_tokens),
        ("version", task.version),
        ("repeats", task.repeats),
    ):
        if value < 1:
            found.append(f"{key}: {value} is less than 1")
    if not 0 <= task.temperature <= 2:
        found.append(f"temperature: {task.temperature} is not between 0 (greedy) and 2")
    if task.repeats > 1 and not task.temperature:
        found.append(f"repeats: {task.repeats} greedy answers to one item are all alike; give temperature above 0")
    if task.margin_percent is not None and not 0 < task.margin_percent <= 100:
        found.append(f"margin_percent: {task.margin_percent} is no share of the base's score; give 0 to 100")
    if task.base_score is not None and not 0 <= task.base_score <= 1:
        found.append(f"base_score: {task.base_score} is not between 0 and 1")
    if task.few_shot < 0:
        found.append(f"few_shot: {task.few_shot} is less than 0")
    if task.generator is not None and (task.data is not None or task.hub is not None):
        found.append("generator: a task has one source of items; remove generator, or data and hub")
    names = [("scorer", SCORERS, task.scorer), ("reader", READERS, task.reader)]
    if not task.metric.startswith(FOREIGN_METRIC):
        names.append(("metric", METRICS, task.metric))
    if task.generator is not None:
        names.append(("generator", GENERATORS, task.generator))
    for kind, package, name in names:
        known = catalog.names(package)
        if name not in known:
            found.append(f"{kind}: {UnknownName(kind, name, known)}")
    found.extend(prompts.template_problems(task))
    return found


def _beside(path: Path, data: str | None) -> str | None:
    return None if data is None else str((path.parent / data).resolve())


def _source(task: TaskSpec, wanted: int, data: str | Path | None) -> tuple[Item, ...]:
    if data is None and task.generator is not None:
        from qtool.data.generators import draw

        return draw(task.generator, "test", task.seed, wanted)
    if data is not None or task.data is not None:
        items = rows.read_items(Path(data or task.data or ""), task)
    elif task.hub is not None:
        from qtool.evaluate.items.hub import rows as hub_rows

        numbered = list(hub_rows(task.hub, task=task.name))
        if task.reader == "text":  # a set that keeps one text as many rows, a line in each
            numbered = [(1, {"text": "".join(rows.text_of(row, "text") for _, row in numbered)})]
        items = rows.to_items(numbered, task, source=task.hub.repository)
    else:
        raise DataError(f"task {task.name}: it has no items of its own; give a local file with --data")
    shuffled = list(items)
    random.Random(task.seed).shuffle(shuffled)  # files are often sorted by subject; a prefix must not be one subject
    return tuple(shuffled[:wanted])
