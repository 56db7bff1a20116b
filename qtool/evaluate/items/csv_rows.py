"""Rows of CSV as spreadsheets write it: comma, semicolon or tab, quoted line ends, fields of any length."""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from qtool.errors import DataError

_DELIMITERS = ",;\t|"
_OWN_LIMIT = 131_072  # of Python's csv module, restored after each file


def csv_rows(path: Path, stream: Iterable[str]) -> Iterator[tuple[int, dict[str, object]]]:
    """(first line of the row, its fields by name). Raises DataError naming the line of a row that does not fit."""
    lines = _Counted(stream)
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        reader = csv.reader(lines, delimiter=_delimiter(lines), strict=True)
        names: list[str] | None = None
        number = 0
        while True:
            number = lines.read + 1
            cells = next(reader, None)
            if cells is None:
                return
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _names(path, number, cells)
                continue
            yield number, _row(path, number, names, cells)
    except csv.Error as error:
        raise DataError(f"{path}:{number}: not valid CSV: {error}") from error
    finally:
        csv.field_size_limit(before)


class _Counted:
    """Lines of a stream, counted as they are read; the first can be looked at before."""

    def __init__(self, stream: Iterable[str]) -> None:
        self._lines = iter(stream)
        self._first = next(self._lines, None)
        self.read = 0

    @property
    def first(self) -> str:
        return self._first or ""

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        line = self._first if self._first is not None else next(self._lines)
        self._first = None
        self.read += 1
        return line


def _delimiter(lines: _Counted) -> str:
    """The separator that the header has most of, outside of quotes; "sep=;" in the first line names it."""
    if lines.first.lower().startswith("sep=") and len(lines.first.strip()) == 5:
        return next(lines).strip()[-1]
    outside = "".join(lines.first.split('"')[::2])
    return max(_DELIMITERS, key=outside.count)


def _names(path: Path, number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}:{number}: the header has {', '.join(map(repr, twice))} twice")
    return names


def _row(path: Path, number: int, names: list[str], cells: list[str]) -> dict[str, object]:
    left_over = [cell for cell in cells[len(names) :] if cell.strip()]
    if left_over:
        raise DataError(
            f"{path}:{number}: {len(cells)} fields, but the header names {len(names)}; put quotes around text that "
            "holds the separator"
        )
    if len(cells) < len(names):
        raise DataError(f"{path}:{number}: {len(cells)} fields, but the header names {len(names)}")
    return {name: cell for name, cell in zip(names, cells, strict=False) if name}
