"""Runs one process and measures it with all its children: time, processor time, peak memory, first word."""

import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_POLL_S = 0.1
_TAIL = 4000
_KILL_GRACE_S = 30.0
_FLAGS = ("Traceback", "Warning", "deprecated", "nan", "? items", "None ")


@dataclass(slots=True)
class Measured:
    """A finished process. `segments` are (seconds since the start, line) of what it wrote on stderr."""

    code: int = 0
    killed: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    first_word_s: float | None = None
    output: str = ""
    segments: list[tuple[float, str]] = field(default_factory=list)

    @property
    def tail(self) -> str:
        """The end of what it printed."""
        return (self.output + "\n".join(line for _, line in self.segments))[-_TAIL:]

    def flags(self) -> list[str]:
        """Words in its output that no user should meet."""
        said = self.output + "\n".join(line for _, line in self.segments)
        return [word for word in _FLAGS if re.search(rf"(?<!\w){re.escape(word)}", said)]


def measure(
    command: Sequence[str], *, environment: Mapping[str, str], kill_after: float | None, limit_s: float
) -> Measured:
    """Runs `command` to its end. With `kill_after` seconds it gets SIGKILL then, as a lost machine would give it."""
    found = Measured()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started_s = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    readers = [
        threading.Thread(target=_read, args=(process.stderr, found, started_s, found.segments)),
        threading.Thread(target=_read, args=(process.stdout, found, started_s, None)),
    ]
    for reader in readers:
        reader.start()
    end_s = started_s + (limit_s if kill_after is None else min(kill_after, limit_s))
    while process.poll() is None:
        found.peak_bytes = max(found.peak_bytes, sum(_peaks(process.pid).values()))
        if time.monotonic() > end_s:
            os.killpg(process.pid, signal.SIGKILL)
            found.killed = True
            process.wait(_KILL_GRACE_S)
        time.sleep(_POLL_S)
    for reader in readers:
        reader.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.code = process.returncode
    found.wall_s = time.monotonic() - started_s
    found.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found


def _read(stream: IO[str] | None, found: Measured, started_s: float, lines: list[tuple[float, str]] | None) -> None:
    assert stream is not None
    for line in stream:
        now_s = time.monotonic() - started_s
        if found.first_word_s is None and line.strip():
            found.first_word_s = now_s
        if lines is None:
            found.output += line
        else:
            lines.append((round(now_s, 2), line.rstrip("\n")))


def _peaks(pid: int) -> dict[int, int]:
    """VmHWM in bytes of the process and of every living descendant."""
    found: dict[int, int] = {}
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            status = Path(f"/proc/{one}/status").read_text(encoding="ascii", errors="replace")
            tasks = list(Path(f"/proc/{one}/task").iterdir())
            for task in tasks:
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it ended meanwhile
            continue
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        if match:
            found[one] = int(match[1]) * 1024
    return found
