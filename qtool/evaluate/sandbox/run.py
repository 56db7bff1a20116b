"""Chooses a sandbox, starts a program in it, and tells how it ended."""

import contextlib
import functools
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast, get_args

from qtool.errors import CapacityError, PlanError
from qtool.evaluate.sandbox.wrappers import Limits, bubblewrap, namespaces, nsjail, python, source, unprivileged

Kind = Literal["passed", "assertion", "exception", "syntax", "memory", "timeout", "died"]
SandboxName = Literal["bubblewrap", "nsjail", "namespaces", "none"]

_PROGRAMS = {"bubblewrap": "bwrap", "nsjail": "nsjail"}
_MOST_OUTPUT_BYTES = 65_536
_REFUSED = 121


USUAL = Limits()
USUAL_ORDER: tuple[SandboxName, ...] = ("bubblewrap", "nsjail", "namespaces")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and the message it ended with."""

    kind: Kind
    detail: str


def execute(program: str, tests: Sequence[str], *, sandbox: SandboxName, limits: Limits = USUAL) -> Outcome:
    """Runs `program`, then each of `tests` in the same name space, in `sandbox`. Never raises for what they do."""
    token = secrets.token_hex(16)
    inside_drop = unprivileged() if sandbox == "bubblewrap" and os.geteuid() == 0 else None
    order = {
        "program": program,
        "tests": list(tests),
        "token": token,
        "limits": asdict(limits),
        "drop_to": inside_drop,
    }
    with tempfile.TemporaryDirectory(prefix="qtool-sandbox-") as root:
        argv = [*_wrapper(sandbox, root, limits), python(), "-I", "-S", "-c", source("inside.py")]
        code, output, errors = _communicate(argv, json.dumps(order).encode(), limits.wall_seconds, cwd=root)
    if code is None:
        return Outcome("timeout", f"stopped after {limits.wall_seconds:g} s")
    for line in output.splitlines():
        if token.encode() in line:
            report = json.loads(line)
            return Outcome(report["kind"], report["detail"])
    if code == _REFUSED and sandbox != "none":
        raise CapacityError(f"the sandbox {sandbox} stopped working: {errors.strip()}")
    if code in (128 + signal.SIGXCPU, -signal.SIGXCPU):
        return Outcome("timeout", f"stopped after {limits.cpu_seconds} s of CPU time")
    if sandbox == "nsjail" and code == 128 + signal.SIGKILL:  # it is process 1 there, which nothing milder ends
        return Outcome("timeout", f"killed after {limits.cpu_seconds} s of CPU time, or by the kernel")
    return Outcome("died", f"exit code {code}")


def choose(asked: str = "auto") -> SandboxName:
    """The sandbox to use. Raises CapacityError where none works, with what was tried and why it failed."""
    if asked == "none":
        return "none"
    if asked not in ("auto", *get_args(SandboxName)):
        raise PlanError([f"sandbox: {asked!r} is not auto, {', '.join(get_args(SandboxName))}"])
    reasons = []
    for name in USUAL_ORDER if asked == "auto" else (cast(SandboxName, asked),):
        problem = _problem(name)
        if problem is None:
            return name
        reasons.append(f"{name}: {problem}")
    raise CapacityError(
        f"code cannot be run safely here ({'; '.join(reasons)}); install bubblewrap, or allow it without a sandbox "
        "with --unsafe-code if you trust what the model writes"
    )


@functools.cache
def _problem(sandbox: SandboxName) -> str | None:
    """Why `sandbox` does not work on this machine, or None: found out by running a program that must pass."""
    if sys.platform != "linux":
        return "needs Linux"
    program = _PROGRAMS.get(sandbox)
    if program is not None and shutil.which(program) is None:
        return f"{program} is not installed"
    try:
        outcome = execute("x = 1", ["assert x == 1"], sandbox=sandbox, limits=Limits(wall_seconds=120.0))
    except CapacityError as error:
        return str(error)
    return None if outcome.kind == "passed" else f"a program that must pass ended with {outcome.kind}: {outcome.detail}"


def _wrapper(sandbox: SandboxName, root: str, limits: Limits) -> list[str]:
    """The command that puts the command after it into `sandbox`."""
    if sandbox == "none":
        return []
    makers = {"bubblewrap": bubblewrap, "nsjail": nsjail, "namespaces": namespaces}
    return makers[sandbox](root, limits)


def _communicate(argv: list[str], order: bytes, seconds: float, *, cwd: str) -> tuple[int | None, bytes, str]:
    """(exit code or None if it had to be stopped, first output bytes, first error text); kills all it started."""
    deadline = time.monotonic() + seconds
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        start_new_session=True,
    ) as process:
        try:
            output, errors = _read(process, order, deadline)
            code = process.wait(max(0.01, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None, b"", ""
        finally:
            _kill(process)
    return code, output, errors.decode(errors="replace")


def _read(process: "subprocess.Popen[bytes]", order: bytes, deadline: float) -> tuple[bytes, bytes]:
    """What the process writes; it is killed if it writes without end, and may close its pipes and go on."""
    assert process.stdin is not None, "a pipe"
    assert process.stdout is not None, "a pipe"
    assert process.stderr is not None, "a pipe"
    with contextlib.suppress(BrokenPipeError):  # it ended before it read: its exit code says why
        process.stdin.write(order)
        process.stdin.close()
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
