"""How many threads torch computes with, at most the cores one really has, and how they wait."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qtool.errors import UsageError

_CGROUP = Path("/sys/fs/cgroup")
_OWN_WAITS = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


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


def waiting() -> dict[str, str]:
    """Environment in which threads that wait spin for some microseconds and then sleep, for a process that is yet to
    import torch; empty where the user has a setting of their own.

    Threads that spin as long as libgomp lets them take the cores of those that work: two programs side by side on two
    cores were hundreds of times slower at decoding. Threads that sleep at once are woken late on an idle machine:
    several times slower, alone. A thousand turns cost little in either case (docs/engine.md has the figures).
    """
    return {} if _OWN_WAITS & os.environ.keys() else {"GOMP_SPINCOUNT": "1000"}


def wait_briefly() -> None:
    """Makes this process one of those. To be called before torch is imported."""
    os.environ.update(waiting())


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
