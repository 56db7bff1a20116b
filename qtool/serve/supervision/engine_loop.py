"""The loop that owns an engine, in a child process or (tests) in a thread: commands in, events out, a heartbeat."""

import time
from collections.abc import Callable
from typing import Protocol

from qtool.engine.contract import Engine, TokenEvent
from qtool.errors import QtoolError, RequestError
from qtool.serve.supervision.errands import Errands
from qtool.serve.supervision.messages import (
    Beat,
    Close,
    Command,
    Compare,
    Failed,
    Look,
    Opened,
    Phase,
    Refusal,
    Report,
    Submit,
)

_BEAT_SECONDS = 0.25
_STATUS_SECONDS = 1.0

Emit = Callable[[Report], None]
Opener = Callable[[Callable[[str], None]], tuple[Engine, Opened]]


class Inbox(Protocol):
    """Where commands come from."""

    def take(self, timeout_s: float | None) -> Command | None:
        """The next command; None when there is none within `timeout_s` (None: none at once)."""
        ...


def run_engine(open_engine: Opener, inbox: Inbox, emit: Emit) -> None:
    """Opens the engine and serves it until told to close. An exception that is no QtoolError ends the process: what
    state the engine is in then nobody knows, and the supervisor starts another."""
    engine: Engine | None = None
    try:
        engine, opened = open_engine(lambda name: emit(Phase(name)))
        emit(opened)
        loop = _Loop(engine, inbox, emit)
        while loop.round():
            pass
    except QtoolError as error:
        emit(Failed(str(error), error.exit_code))
    finally:
        if engine is not None:
            engine.close()


class _Loop:
    """The rounds of one open engine."""

    def __init__(self, engine: Engine, inbox: Inbox, emit: Emit) -> None:
        self._engine = engine
        self._inbox = inbox
        self._emit = emit
        self._ours: dict[int, int] = {}  # the engine's number -> the caller's
        self._theirs: dict[int, int] = {}
        self._errands = Errands()
        self._freeing = False
        self._beat_s = self._status_s = time.monotonic()

    def round(self) -> bool:
        """Takes commands, advances the batch by one token. False when asked to close."""
        busy = bool(self._ours or self._freeing)
        timeout = None if busy else (0.0 if self._errands else _BEAT_SECONDS)
        command = self._inbox.take(timeout)
        while command is not None:
            if not self._obey(command):
                return False
            command = self._inbox.take(None)
        if self._ours or self._freeing:
            self._freeing = False  # an engine gives an aborted request's slot back in its next step
            self._step()
            if self._errands.due():
                self._emit(self._errands.run(self._engine))
        elif self._errands:  # one at a time, so that a waiting client is served in between
            self._emit(self._errands.run(self._engine))
        self._beat()
        return True

    def _obey(self, command: Command) -> bool:
        if isinstance(command, Close):
            return False
        if isinstance(command, Submit):
            try:
                number = self._engine.submit(command.request)
            except RequestError as error:
                self._emit(Refusal(command.number, str(error)))
                return True
            self._ours[number] = command.number
            self._theirs[command.number] = number
        elif isinstance(command, Look | Compare):
            self._errands.add(command)
        elif (number := self._theirs.pop(command.number, -1)) >= 0:
            self._engine.abort(number)
            del self._ours[number]
            self._freeing = True
        return True

    def _step(self) -> None:
        events = []
        for event in self._engine.step():
            number = self._ours.get(event.request)
            if number is None:
                continue
            if event.finish is not None:
                del self._ours[event.request]
                del self._theirs[number]
            events.append(
                TokenEvent(number, event.token, event.logprob, event.time_s, event.finish, event.error, event.top)
            )
        if events:
            self._beat_s = time.monotonic()
            self._emit(tuple(events))

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._status_s >= _STATUS_SECONDS:
            self._status_s = self._beat_s = now
            self._emit(Beat(self._engine.status(), device_bytes(self._engine.device)))
        elif now - self._beat_s >= _BEAT_SECONDS:
            self._beat_s = now
            self._emit(Beat())


def device_bytes(device: str) -> tuple[int, int] | None:
    """Bytes in use and in all of the accelerator that `device` names; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    free, total = torch.cuda.mem_get_info(device)
    return total - free, total
