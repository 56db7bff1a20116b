"""How many threads torch computes with, at most the cores one really has, and how they wait."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qtool.errors import UsageError

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its cgroup where there is one."""
    quota = _quota()
    return max(1, min(_affinity(), math.ceil(quota) if quota else _affinity()))


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Computes with `threads`. None leaves torch's own number, which is OMP_NUM_THREADS or the cores of the affinity,
    unless the cgroup's quota allows fewer: threads that have no core of their own make the others wait."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads is {threads}; give 1 or more")
    most = None if "OMP_NUM_THREADS" in os.environ or usable_cores() >= _affinity() else usable_cores()
    if threads is None and most is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or min(before, most or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait_without_spinning() -> None:
    """To be called before torch is imported. Threads that spin while they wait take the cores of those that work: on a
    busy machine a calibration with two of them took twice as long as with threads that sleep. A user's own setting
    stays."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float | None:
    """CPUs that the control group allows, in version 2 or 1; None without a limit."""
    try:
        whole, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return None if whole == "max" else int(whole) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = _CGROUP / "cpu"
        whole = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
        period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(whole) / int(period) if int(whole) > 0 else None
    except (OSError, ValueError):
        return None
