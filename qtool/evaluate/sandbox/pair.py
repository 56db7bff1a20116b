"""Starts judge and program, each in its own sandbox with one channel between them, and collects the judge's word."""

import contextlib
import json
import math
import os
import selectors
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MOST_OUTPUT_BYTES = 65_536
_GONE = (BrokenPipeError, ConnectionResetError, BlockingIOError)
_PARTING_SECONDS = 2.0  # a program that the kernel is ending has closed its channel a moment before


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its command line and the order that it reads first."""

    argv: Sequence[str]
    order: dict[str, object]


@dataclass(frozen=True, slots=True)
class Ended:
    """What the judge wrote, and how both processes ended: None for one that had to be stopped."""

    report: bytes
    judge_code: int | None
    program_code: int | None
    errors: str


def run_pair(judge: Side, program: Side, *, seconds: float, cwd: str) -> Ended:
    """Runs both until the judge has ended or `seconds` are over; nothing that they started is left."""
    deadline = time.monotonic() + seconds
    near, far = socket.socketpair()
    for end in (near, far):  # of the socket, not of our descriptor, which shares its flags with the child's
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", math.ceil(seconds), 0))
    with near, far, _started(program, far, cwd) as foreign, _started(judge, near, cwd) as own:
        try:
            _send(near, program.order)  # what is written at one end is read at the other
            _send(far, judge.order)
            near.close()
            far.close()
            report, errors = _read(own, deadline)
            judge_code = own.wait(max(0.01, deadline - time.monotonic()))
            program_code = _ended(foreign, lost=b'"lost"' in report or not report)
        except subprocess.TimeoutExpired:
            return Ended(b"", None, None, "")
        finally:
            _kill(own)
            _kill(foreign)
        if foreign.stderr is not None:
            errors += foreign.stderr.read(_MOST_OUTPUT_BYTES)
    return Ended(report, judge_code, program_code, errors.decode(errors="replace"))


@contextlib.contextmanager
def _started(side: Side, channel: socket.socket, cwd: str) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(
        side.argv,
        stdin=channel.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            _kill(process)


def _send(end: socket.socket, order: dict[str, object]) -> None:
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError, BlockingIOError
    ):  # it ended before it read: its exit code says why
        end.sendall(json.dumps(order).encode() + b"\n")


def _ended(process: "subprocess.Popen[bytes]", *, lost: bool) -> int | None:
    """The exit code of the program, waited for where its channel closed before the judge was done."""
    if not lost:
        return process.poll()
    try:
        return process.wait(_PARTING_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _read(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bytes, bytes]:
    """What the judge writes. Raises TimeoutExpired at the deadline."""
    assert process.stdout is not None, "a pipe"
    assert process.stderr is not None, "a pipe"
    collected = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    with selectors.DefaultSelector() as selector:
        for descriptor in collected:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise subprocess.TimeoutExpired(process.args, 0)
            for key, _ in selector.select(remaining):
                chunk = os.read(key.fd, 4096)
                collected[key.fd] += chunk
                if len(collected[key.fd]) > _MOST_OUTPUT_BYTES:
                    _kill(process)
                    chunk = b""
                if not chunk:
                    selector.unregister(key.fd)
    return collected[process.stdout.fileno()], collected[process.stderr.fileno()]


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
