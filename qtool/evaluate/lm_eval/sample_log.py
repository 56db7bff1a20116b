"""Reads what lm-evaluation-harness leaves with `--log_samples`: one `samples_<task>_<date>.jsonl` for each task."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qtool.errors import DataError
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.records.evaluation import ItemResult, Unit
from qtool.records.task import Item, TaskSpec
from qtool.store.digest import record_digest
from qtool.store.run_directory import explained

Line = Mapping[str, object]

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d{2}-\d{2}T[\d\-.:]+))?\.jsonl")
_PREFERRED = ("exact_match", "acc", "acc_norm", "pass@1", "f1")


@dataclass(frozen=True, slots=True)
class Log:
    """One task's samples under one metric and one filter."""

    metric: str
    rows: tuple[ItemResult, ...]
    binary: bool


class LoggedMetric:
    """The metric of a log: values are there already, so nothing is ever graded."""

    DIRECTION: Direction = "higher"
    PERFECT = 1.0
    UNIT: Unit = "fraction"

    def __init__(self, *, binary: bool) -> None:
        self.BINARY = binary

    def grade(self, item: Item, answer: Answer, task: TaskSpec) -> Grade:
        """Never called: the log has the values."""
        raise NotImplementedError


def read_logs(path: Path, *, metric: str | None = None, log_filter: str | None = None) -> dict[str, Log]:
    """The newest log of each task in the file or folder `path`. Raises DataError naming file and line."""
    files = [path] if path.is_file() else sorted(path.rglob("samples_*.jsonl"))
    newest = {_task_of(file): file for file in sorted(files, key=lambda file: file.name)}
    if not newest:
        raise DataError(f"{path}: holds neither evaluations of qtool nor samples_*.jsonl of lm-eval (--log_samples)")
    return {task: _read(file, metric, log_filter) for task, file in newest.items()}


def _task_of(file: Path) -> str:
    found = _NAME.fullmatch(file.name)
    return found["task"] if found else file.stem


def _read(file: Path, metric: str | None, log_filter: str | None) -> Log:
    return rows_of(list(lines_of(file)), where=str(file), metric=metric, log_filter=log_filter)


def rows_of(
    numbered: Sequence[tuple[int, Line]], *, where: str, metric: str | None = None, log_filter: str | None = None
) -> Log:
    """Samples of one task, as (line number, sample), under one filter and metric: the first ones unless named."""
    if not numbered:
        raise DataError(f"{where}: holds no samples")
    filters = list(dict.fromkeys(str(line.get("filter", "none")) for _, line in numbered))
    chosen = log_filter or filters[0]
    if chosen not in filters:
        raise DataError(f"{where}: no filter {chosen!r}; it has {', '.join(filters)}")
    kept = [(number, line) for number, line in numbered if str(line.get("filter", "none")) == chosen]
    name = metric or _metric_of(where, kept[0][1])
    rows = tuple(_row(where, number, line, name) for number, line in kept)
    return Log(metric=name, rows=rows, binary=all(row.score in (0.0, 1.0) for row in rows))


def of_filter(lines: Sequence[Line], log_filter: str | None) -> list[Line]:
    """The samples under `log_filter`, or under the first one there is."""
    chosen = log_filter or str(lines[0].get("filter", "none"))
    return [line for line in lines if str(line.get("filter", "none")) == chosen]


def _metric_of(file: str, line: Line) -> str:
    listed = line.get("metrics")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    found = [name for name in _PREFERRED if name in line] + [
        name for name in names if _number(line.get(name)) is not None
    ]
    if not found:
        raise DataError(f"{file}: its samples have no value that is a number; name a metric with --metric")
    return found[0]


def _row(file: str, number: int, line: Line, metric: str) -> ItemResult:
    value = _number(line.get(metric))
    if value is None:
        raise DataError(f"{file}:{number}: no number called {metric!r}; it has {', '.join(sorted(line))}")
    if "doc_id" not in line:
        raise DataError(f"{file}:{number}: no 'doc_id'; this is not a sample of lm-eval")
    same = [line.get(name) for name in ("doc_hash", "target_hash")] if "doc_hash" in line else [line.get("target")]
    answer = _answer(line.get("filtered_resps"))
    return ItemResult(
        id=str(line["doc_id"]),
        prompt="",
        output=_text(line.get("resps")),
        extracted=answer,
        target=_text(line.get("target")),
        score=value,
        finish="stop",
        prompt_tokens=0,
        output_tokens=0,
        latency_ms=0.0,
        prompt_digest=record_digest([str(part) for part in same]),
    )


def lines_of(file: Path) -> Iterator[tuple[int, Line]]:
    """(number, object) of each line of a JSON lines file. Raises DataError naming the line that is none."""
    with explained(file), file.open(encoding="utf-8") as stream:
        for number, text in enumerate(stream, start=1):
            try:
                line = json.loads(text) if text.strip() else None
            except json.JSONDecodeError as error:
                raise DataError(f"{file}:{number}: not valid JSON: {error.msg}") from error
            if line is None:
                continue
            if not isinstance(line, dict):
                raise DataError(f"{file}:{number}: expected a JSON object, got {type(line).__name__}")
            yield number, line


def _number(value: object) -> float | None:
    if isinstance(value, bool | int | float):
        return float(value)
    return None


def _answer(responses: object) -> str:
    """What was answered: the text, or, where likelihoods of choices were asked for, the number of the likeliest.

    The likelihoods themselves differ between any two models, so they would make every item look changed.
    """
    pairs = responses if isinstance(responses, list) else []
    try:
        likelihoods = [float(pair[0]) for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2]
    except (TypeError, ValueError):
        likelihoods = []
    if likelihoods and len(likelihoods) == len(pairs):
        return str(likelihoods.index(max(likelihoods))) if len(pairs) > 1 else str(pairs[0][1])
    return _text(responses)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
