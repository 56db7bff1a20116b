"""Rows of local files, one at a time with the place they stand at: JSONL, JSON, CSV, Parquet, plain text, folders."""

import csv
import gzip
import importlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from qtool import catalog
from qtool.errors import DataError

Fields = Mapping[str, Any]

_SNIFFED = 1 << 16
_LONGEST_FIELD = 1 << 28  # csv's own limit is 131,072 characters
Damaged = Callable[[DataError], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source: its fields, and `where` it stands (file and line, or item)."""

    where: str
    fields: Fields


def is_data(path: Path) -> bool:
    """Whether `path` is named like a data file."""
    return _kind(path) in _READERS


def read_rows(path: Path, *, damaged: Damaged | None = None) -> Iterator[Row]:
    """Rows of a file, or of all data files in a folder in order of their names, without holding them in memory.

    Raises DataError naming file and line; with `damaged`, a JSONL line that cannot be read is handed there instead, and
    reading goes on.
    """
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and is_data(file)]
        if not files:
            raise DataError(f"{path}: holds no data file; known kinds are {', '.join(SUFFIXES)}")
        for file in files:
            yield from read_rows(file, damaged=damaged)
        return
    reader = _READERS.get(_kind(path))
    if reader is None:
        raise DataError(f"{path}: unknown kind of data file; known kinds are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        yield from _jsonl(path, damaged) if reader is _jsonl else reader(path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start} of a block); convert it first") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _jsonl(path: Path, damaged: Damaged | None = None) -> Iterator[Row]:
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield Row(f"{path}:{number}", _object(line, f"{path}:{number}"))
            except DataError as error:
                if damaged is None:
                    raise
                damaged(error)


def _json(path: Path) -> Iterator[Row]:
    with _open(path) as stream:
        rows = _parsed(stream.read(), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a list of objects at the top level, got {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: entry {number}: expected an object, got {type(row).__name__}")
        yield Row(f"{path}: entry {number}", row)


def _csv(path: Path) -> Iterator[Row]:
    with _open(path) as stream:
        head = stream.read(_SNIFFED)
        stream.seek(0)
        csv.field_size_limit(_LONGEST_FIELD)
        reader = csv.DictReader(stream, delimiter=_delimiter(head))
        try:
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(f"{where}: has not {len(reader.fieldnames or ())} fields as the first line says")
                yield Row(where, row)
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _delimiter(head: str) -> str:
    """What parts the columns of the first line: a comma, unless it has none but semicolons or tabs, as Excel writes
    them where the comma is the decimal point."""
    first = head.partition("\n")[0]
    counts = {mark: first.count(mark) for mark in (",", ";", "\t")}
    return "," if counts[","] or not any(counts.values()) else max(counts, key=lambda mark: counts[mark])


def _parquet(path: Path) -> Iterator[Row]:
    arrow = catalog.require("pyarrow", needed_by="a Parquet file", extra="data")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield Row(f"{path}: row {number}", row)
    except arrow.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error


def _text(path: Path) -> Iterator[Row]:
    """Paragraphs: lines up to a blank one."""
    start = 1
    lines: list[str] = []
    with _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                if not lines:
                    start = number
                lines.append(line)
            elif lines:
                yield Row(f"{path}:{start}", {"text": "".join(lines)})
                lines = []
    if lines:
        yield Row(f"{path}:{start}", {"text": "".join(lines)})


def _object(line: str, where: str) -> Fields:
    row = _parsed(line, where)
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, got {type(row).__name__}")
    return row


def _parsed(text: str, where: str) -> Any:
    """`text` as JSON. Raises DataError for what is none, and for numbers and depths that Python does not read."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f":{error.lineno}" if "\n" in text.rstrip("\n") else ""
        raise DataError(f"{where}{place}: not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise DataError(f"{where}: JSON nested too deep to be read; flatten it") from error
    except ValueError as error:  # an integer of more digits than Python turns into a number
        raise DataError(f"{where}: holds a number too long to be read; write it as text, in quotes") from error


def _open(path: Path) -> IO[str]:
    """The text of `path`, in UTF-8 with or without the mark that Windows puts first."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".txt": _text,
    ".md": _text,
}
SUFFIXES = tuple(_READERS)
