"""Rows of a set in a file: token ids grow with the rows, so the pass over them must not hold them as Python numbers."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from qtool.data.sequences import TokenSequence
from qtool.store.run_directory import explained

NAME = "rows.bin"
Stored = tuple[str, bool, str]  # tag, whether held out, where the row comes from


class StoredRows(Sequence[TokenSequence]):
    """Sequences whose token ids are read from `path`, int32, one sequence at a time."""

    def __init__(self, path: Path, ends: NDArray[np.int64], rows: Sequence[Stored]) -> None:
        self._path, self._ends, self._rows = path, ends, rows

    @overload
    def __getitem__(self, row: int) -> TokenSequence: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[TokenSequence, ...]: ...
    def __getitem__(self, row: int | slice) -> TokenSequence | tuple[TokenSequence, ...]:
        if isinstance(row, slice):
            return tuple(self[index] for index in range(*row.indices(len(self))))
        tag, held_out, where = self._rows[row]
        return TokenSequence(array("i", self.ids(row).tobytes()), tag, held_out, where)

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self, row: int) -> NDArray[np.int32]:
        """Token ids of `row`, int32 [tokens]. Raises StoreError when the file cannot be read."""
        start = int(self._ends[row - 1]) if row else 0
        count = int(self._ends[row]) - start
        with explained(self._path):
            # read, not mapped: pages of a map count as resident memory once they are touched
            return np.fromfile(self._path, dtype=np.int32, count=count, offset=start * 4)

    def where(self, row: int) -> str:
        """Where `row` comes from."""
        return self._rows[row][2]

    def length(self, row: int) -> int:
        """Tokens of `row`."""
        return int(self._ends[row]) - (int(self._ends[row - 1]) if row else 0)


def store_rows(path: Path, sequences: Sequence[TokenSequence]) -> StoredRows:
    """Writes the token ids of `sequences` to `path`. Raises StoreError when the disk is full."""
    with explained(path), path.open("wb") as file:
        for sequence in sequences:
            file.write(np.asarray(sequence.tokens, dtype=np.int32).tobytes())
    ends = np.cumsum([len(sequence.tokens) for sequence in sequences], dtype=np.int64)
    rows = [(sequence.tag, sequence.held_out, sequence.where) for sequence in sequences]
    return StoredRows(path, ends, rows)
