"""Tensors of zeros that take memory page by page, where they are written, and can give it back."""

import contextlib
import mmap
import sys

import torch
from torch import Tensor

from qtool.errors import CapacityError

_LAZY = sys.platform == "linux"  # elsewhere "not needed" does not mean "zero from now on"


class LazyZeros:
    """Zeros [rows, columns...] on a CPU. Until a page is written, it costs address space and no memory.

    Raises CapacityError where the system does not even give the addresses.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        count = 1
        for size in shape:
            count *= size
        self._row_bytes = count // max(shape[0], 1) * dtype.itemsize
        size = max(count * dtype.itemsize, mmap.PAGESIZE)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        try:
            self._pages = mmap.mmap(-1, size, flags=flags)
        except OSError as error:
            raise CapacityError(
                f"the system gives no {size / 1e9:.2f} GB of addresses for keys and values ({error.strerror}); "
                "ask for fewer requests at once or a smaller context"
            ) from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a huge page would commit 2 MB for the keys of a few tokens
            with contextlib.suppress(OSError):  # a kernel without huge pages knows no such advice
                self._pages.madvise(mmap.MADV_NOHUGEPAGE)
        self.tensor: Tensor = torch.frombuffer(self._pages, dtype=dtype, count=count).view(shape)

    def clear(self, row: int) -> None:
        """Makes a row zero, giving the pages that are its alone back to the system."""
        start, end = row * self._row_bytes, (row + 1) * self._row_bytes
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = end // mmap.PAGESIZE * mmap.PAGESIZE
        if not _LAZY or last <= first:
            self.tensor[row].zero_()
            return
        self._pages.madvise(mmap.MADV_DONTNEED, first, last - first)
        flat = self.tensor.view(torch.uint8).view(-1)
        flat[start:first].zero_()
        flat[last:end].zero_()
