"""Hidden states of every row between two blocks: in memory up to a budget, the rest in one file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from qtool.store.run_directory import explained


class Activations:
    """One tensor a row, overwritten in place from block to block; every tensor of a row has the same size."""

    def __init__(self, budget_bytes: int, spill: Path) -> None:
        self._budget_bytes = budget_bytes
        self._spill = spill
        self._file: BinaryIO | None = None
        self._kept: dict[int, Tensor] = {}
        self._kept_bytes = 0
        self._places: dict[int, tuple[int, torch.Size, torch.dtype]] = {}
        self._end = 0

    @property
    def spilled_bytes(self) -> int:
        """Size of what did not fit into the budget."""
        return self._end

    def put(self, row: int, hidden: Tensor) -> None:
        """Keeps `hidden` for `row`, in memory while the budget lasts. Raises StoreError when the disk is full."""
        hidden = hidden.detach().cpu()
        if row in self._kept:
            self._kept[row] = hidden
        elif row in self._places:
            self._write(self._places[row][0], hidden)
        elif self._kept_bytes + hidden.nbytes <= self._budget_bytes:
            self._kept[row] = hidden
            self._kept_bytes += hidden.nbytes
        else:
            self._places[row] = (self._end, hidden.shape, hidden.dtype)
            self._write(self._end, hidden)
            self._end += hidden.nbytes

    def get(self, row: int) -> Tensor:
        """The tensor last put for `row`, on the CPU."""
        if row in self._kept:
            return self._kept[row]
        offset, shape, dtype = self._places[row]
        with explained(self._spill):
            file = self._opened()
            file.seek(offset)
            data = bytearray(file.read(shape.numel() * dtype.itemsize))
        return torch.frombuffer(data, dtype=dtype).reshape(shape)

    def close(self) -> None:
        """Forgets everything and removes the file."""
        self._kept.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
            self._spill.unlink(missing_ok=True)

    def _write(self, offset: int, hidden: Tensor) -> None:
        with explained(self._spill):
            file = self._opened()
            file.seek(offset)
            file.write(hidden.contiguous().view(torch.uint8).numpy().tobytes())
            file.flush()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = self._spill.open("w+b")
        return self._file


@contextlib.contextmanager
def activations(budget_bytes: int, spill: Path) -> Iterator[Activations]:
    """An empty store whose file lives as long as the context."""
    spill.unlink(missing_ok=True)  # of a run that was killed
    store = Activations(budget_bytes, spill)
    try:
        yield store
    finally:
        store.close()
