"""Chooses a sandbox, starts a program in it, and tells how it ended."""

import functools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, cast, get_args

from qtool.errors import CapacityError, PlanError
from qtool.evaluate.sandbox.pair import Ended, Side, run_pair
from qtool.evaluate.sandbox.wrappers import Limits, bubblewrap, namespaces, nsjail, python, side, unprivileged

Kind = Literal["passed", "assertion", "exception", "syntax", "memory", "timeout", "died"]
SandboxName = Literal["bubblewrap", "nsjail", "namespaces", "none"]

_PROGRAMS = {"bubblewrap": "bwrap", "nsjail": "nsjail"}
_REFUSED = 121


USUAL = Limits()
USUAL_ORDER: tuple[SandboxName, ...] = ("bubblewrap", "nsjail", "namespaces")


@dataclass(frozen=True, slots=True)
class Known:
    """What the judge may rely on: the beginning that the model was given, and the whole reference solution."""

    prelude: str = ""
    reference: str = ""


NOTHING_KNOWN = Known()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended, and the message it ended with."""

    kind: Kind
    detail: str


def execute(
    program: str,
    tests: Sequence[str],
    *,
    sandbox: SandboxName,
    limits: Limits = USUAL,
    known: Known = NOTHING_KNOWN,
) -> Outcome:
    """Runs `program` in one sandbox and `tests` in another, which calls it. Never raises for what they do."""
    judge_order: dict[str, object] = {"tests": list(tests), "prelude": known.prelude, "reference": known.reference}
    with tempfile.TemporaryDirectory(prefix="qtool-sandbox-") as root:
        ended = run_pair(
            _side("judge", judge_order, root, sandbox=sandbox, limits=limits),
            _side("program", {"program": program}, root, sandbox=sandbox, limits=limits),
            seconds=limits.wall_seconds,
            cwd=root,
        )
    return _outcome(ended, sandbox, limits)


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


def _side(name: str, order: dict[str, object], root: str, *, sandbox: SandboxName, limits: Limits) -> Side:
    """The judge or the program in a sandbox, with what it is told."""
    drop_to = unprivileged() if sandbox == "bubblewrap" and os.geteuid() == 0 else None
    argv = [*_wrapper(sandbox, root, limits), python(), "-I", "-S", "-c", side(name)]
    return Side(argv, {**order, "limits": asdict(limits), "drop_to": drop_to})


def _outcome(ended: Ended, sandbox: SandboxName, limits: Limits) -> Outcome:
    if ended.judge_code is None:
        return Outcome("timeout", f"stopped after {limits.wall_seconds:g} s")
    if _REFUSED in (ended.judge_code, ended.program_code) and sandbox != "none":
        raise CapacityError(f"the sandbox {sandbox} stopped working: {ended.errors.strip()}")
    try:
        report = json.loads(ended.report)
    except ValueError:  # the judge itself was ended, by its own limits
        return _stopped(ended.judge_code, "the tests", sandbox, limits)
    if report["kind"] != "lost":
        return Outcome(report["kind"], report["detail"])
    return _stopped(ended.program_code, "the program", sandbox, limits)


def _stopped(code: int | None, who: str, sandbox: SandboxName, limits: Limits) -> Outcome:
    if code in (128 + signal.SIGXCPU, -signal.SIGXCPU):
        return Outcome("timeout", f"{who} stopped after {limits.cpu_seconds} s of CPU time")
    if sandbox == "nsjail" and code == 128 + signal.SIGKILL:  # it is process 1 there, which nothing milder ends
        return Outcome("timeout", f"{who} killed after {limits.cpu_seconds} s of CPU time, or by the kernel")
    return Outcome("died", f"{who} ended with exit code {code}" if code is not None else f"{who} closed its channel")


def _wrapper(sandbox: SandboxName, root: str, limits: Limits) -> list[str]:
    """The command that puts the command after it into `sandbox`."""
    if sandbox == "none":
        return []
    makers = {"bubblewrap": bubblewrap, "nsjail": nsjail, "namespaces": namespaces}
    return makers[sandbox](root, limits)
