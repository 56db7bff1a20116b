"""Reads items from a user's file: JSON lines, CSV, JSON, Parquet or plain text; errors name file and line."""

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Protocol, cast

from qtool import catalog
from qtool.data.files import read_rows
from qtool.errors import DataError
from qtool.evaluate.items.csv_rows import csv_rows
from qtool.evaluate.metrics import load_metric
from qtool.records.task import Item, TaskSpec
from qtool.store.run_directory import explained

Row = dict[str, object]


class Reader(Protocol):
    """What a module of `evaluate/readers/` provides."""

    def items(self, row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
        """The items of one row, counted from 1. Raises DataError saying what the row lacks, without file or line."""
        ...


def read_items(path: Path, task: TaskSpec) -> tuple[Item, ...]:
    """All items of the file `path`, as the task's reader makes them."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the task's data with --data FILE")
    return to_items(_file_rows(path), task, source=str(path))


def to_items(numbered: Iterable[tuple[int, Row]], task: TaskSpec, *, source: str) -> tuple[Item, ...]:
    """Items of (line, row) pairs; rows that say the same are one item with a weight.

    Raises DataError for the first row that is malformed, repeats an id or cannot be scored, naming its line.
    """
    reader = cast(Reader, catalog.load("qtool.evaluate.readers", task.reader, kind="reader"))
    check = getattr(load_metric(task.metric), "check", None)
    lines: dict[str, int] = {}
    items: dict[object, Item] = {}
    for number, row in numbered:
        try:
            made = tuple(reader.items(row, number, task))
            for item in made:
                _check_choices(item, task)
                if check is not None and task.scorer != "choice":
                    check(item, task)
        except DataError as error:
            raise DataError(f"{source}:{number}: {error}") from error
        for item in made:
            if item.id in lines:
                raise DataError(f"{source}:{number}: id {item.id!r} was already used in line {lines[item.id]}")
            lines[item.id] = number
            said = replace(item, id="")
            items[said] = replace(items[said], weight=items[said].weight + 1) if said in items else item
    if not items:
        raise DataError(f"{source}: holds no items")
    return tuple(items.values())


def _check_choices(item: Item, task: TaskSpec) -> None:
    if task.scorer != "choice":
        return
    if len(item.choices) < 2:
        raise DataError(f"it has {len(item.choices)} choices; the choice scorer needs at least two")
    if any(not choice.strip() for choice in item.choices):
        raise DataError("one of its choices is empty")
    if item.target not in item.choices:
        raise DataError(f"the target {item.target!r} is not one of its choices")


def text_of(row: Row, *names: str) -> str:
    """The first of `names` that the row has, as text. Raises DataError if it has none."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    raise DataError(f"no {' or '.join(map(repr, names))}; the row has {', '.join(sorted(row)) or 'nothing'}")


def texts_of(row: Row, name: str) -> tuple[str, ...]:
    """The list of texts called `name`. Raises DataError if it is missing or something else."""
    value = row.get(name)
    if isinstance(value, list | tuple) and value and all(isinstance(entry, str) for entry in value):
        return tuple(cast(Iterable[str], value))
    raise DataError(f"{name!r} must be a list of texts")


def _file_rows(path: Path) -> Iterator[tuple[int, Row]]:
    name = path.name.removesuffix(".gz").lower()
    if name.endswith(".parquet"):  # as calibration reads it
        yield from enumerate((dict(row.fields) for row in read_rows(path)), start=1)
        return
    try:
        with explained(path), _opened(path) as stream:
            if name.endswith((".jsonl", ".ndjson")):
                yield from _json_lines(path, stream)
            elif name.endswith(".json"):
                yield from _json_rows(path, stream)
            elif name.endswith((".csv", ".tsv")):
                yield from csv_rows(path, stream)
            elif name.endswith((".txt", ".md", ".raw", ".tokens")):
                yield 1, {"text": "".join(stream)}
            else:
                raise DataError(f"{path}: unknown kind of file; give .jsonl, .csv, .tsv, .json, .parquet or .txt")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8 (Excel: CSV UTF-8)"
        ) from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from error


def _opened(path: Path) -> IO[str]:
    """The text of `path`, without the byte order mark that Excel and Windows editors write."""
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _json_lines(path: Path, stream: Iterable[str]) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error.msg} (column {error.colno})") from error
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless nesting
            raise DataError(f"{path}:{number}: cannot be read: {str(error).split(';')[0]}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
        if _SURROGATE.search(line) and not _is_text(row):
            raise DataError(f"{path}:{number}: holds half of a character (a lone surrogate); correct the text")
        yield number, row


def _json_rows(path: Path, stream: IO[str]) -> Iterator[tuple[int, Row]]:
    """Rows of one JSON value: a list of objects, or an object whose only list of objects they are."""
    try:
        value = json.loads(stream.read())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}; JSON lines are named .jsonl") from error
    values = [value] if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    lists = [each for each in values if isinstance(each, list)]
    if len(lists) != 1 or not lists[0] or not all(isinstance(row, dict) and _is_text(row) for row in lists[0]):
        raise DataError(f"{path}: holds no list of objects, which the items would be")
    yield from enumerate(lists[0], start=1)


def _is_text(value: object) -> bool:
    """Whether every text in `value` can be written as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True
    if isinstance(value, dict):
        return all(_is_text(entry) for pair in value.items() for entry in pair)
    return all(map(_is_text, value)) if isinstance(value, list) else True


_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
