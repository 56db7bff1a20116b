"""The engine's process: `python -m qtool.serve.supervision.child FD`, started by ProcessHost and by nobody else."""

import importlib
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable

from qtool.engine.contract import Engine
from qtool.errors import StoreError
from qtool.serve.supervision.engine_loop import run_engine
from qtool.serve.supervision.messages import Command, Opened, Report
from qtool.serve.supervision.wire import Channel, Opening


class _Pipe:
    """Commands read by a thread of their own, so that an idle engine wakes at once and a busy one never waits."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def take(self, timeout_s: float | None) -> Command | None:
        """The next command, or None."""
        try:
            return self._commands.get(block=timeout_s is not None, timeout=timeout_s)
        except queue.Empty:
            return None

    def emit(self, report: Report) -> None:
        """Sends a report to the server; without one there is nothing left to do."""
        try:
            self._channel.send(report)
        except OSError:
            os._exit(0)

    def _read(self) -> None:
        try:
            while True:
                command = self._channel.receive()
                assert isinstance(command, Command)  # a server commands
                self._commands.put(command)
        except (EOFError, OSError, StoreError):
            os._exit(0)  # the server is gone: nobody is left to answer, and nothing here is worth saving


def main() -> None:
    """Runs one engine to its end."""
    from qtool.serve.watching.log import configure

    configure()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    opening = channel.receive()
    assert isinstance(opening, Opening)  # the first frame
    module, _, name = opening.target.partition(":")

    def open_engine(phase: Callable[[str], None]) -> tuple[Engine, Opened]:
        engine: tuple[Engine, Opened] = getattr(importlib.import_module(module), name)(**opening.arguments)(phase)
        return engine

    pipe = _Pipe(channel)
    run_engine(open_engine, pipe, pipe.emit)
    sys.stderr.flush()
    os._exit(0)  # torch's and the tokenizer's threads are not waited for


if __name__ == "__main__":
    main()
