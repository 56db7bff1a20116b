"""How much memory there is, asked before anything large is allocated."""

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from qtool.errors import CapacityError

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of malloc.h
_HEADROOM_BYTES = 200 << 20  # interpreter, libraries, activations of one step


def available_bytes(device: torch.device) -> int:
    """Free memory of `device`; on a CPU the least that machine, containers and limits of this process leave."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    import psutil

    found = [int(psutil.virtual_memory().available), _container_bytes(), address_bytes()]
    return min(free for free in found if free is not None)


def address_bytes() -> int | None:
    """What `ulimit -v` leaves of this process's address space; None without a limit."""
    try:
        import resource
    except ImportError:  # not a Unix
        return None
    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else max(limit - int(psutil.Process().memory_info().vms), 0)


def refuse_if_too_large(what: str, needed: int, device: torch.device) -> None:
    """Raises CapacityError, saying both numbers, when `needed` bytes and a little more are not free on `device`."""
    free = available_bytes(device)
    if needed + _HEADROOM_BYTES > free:
        raise CapacityError(
            f"{what} needs {needed / 1e9:.2f} GB on {device} and {free / 1e9:.2f} GB are free; "
            "choose a smaller variant, another device, or --dtype bfloat16 where float32 was used"
        )


@contextlib.contextmanager
def freed_at_once() -> Iterator[None]:
    """While weights are loaded, what is freed goes back to the system and does not pile up between live tensors.

    glibc keeps freed blocks of up to 32 MB in its heap, where kept weights pin them: measured, 200 MB beside a model of
    145 MB. Afterwards large temporaries may be kept again, because handing them back costs a page fault a page.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_THRESHOLD, 1 << 16)
    try:
        yield
    finally:
        library.malloc_trim(0)
        library.mallopt(_MMAP_THRESHOLD, 1 << 25)
        library.mallopt(_TRIM_THRESHOLD, 1 << 28)


def give_back_freed() -> None:
    """Hands memory that was freed, and that glibc keeps between what is still used, back to the system."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _container_bytes() -> int | None:
    """What the control groups of this process leave; each of them counts all below it. None without a limit."""
    found = [_group_bytes(folder) for folder in _groups()]
    return min((free for free in found if free is not None), default=None)


def _groups() -> list[Path]:
    """Folders of this process's group and those above it; version 1 has its memory groups in a tree of their own."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    own = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "/")
    below = _CGROUP / own.strip("/")
    above = [folder for folder in below.parents if folder.is_relative_to(_CGROUP)]
    return [below, *above, _CGROUP / "memory"]


def _group_bytes(folder: Path) -> int | None:
    for limit_name, used_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, used = (folder / limit_name).read_text().strip(), int((folder / used_name).read_text())
            statistics = dict(line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines())
            if limit != "max":  # files that were read are given up before the limit bites
                return max(int(limit) - used + int(statistics.get(cache_name, 0)), 0)
        except (OSError, ValueError):
            continue
    return None
