"""The engine's process: `python -m qtool.serve.supervision.child FD`, started by ProcessHost and by nobody else."""

import os
import pickle
import queue
import sys
import threading
from multiprocessing.connection import Connection

from qtool.serve.supervision.engine_loop import Command, Opener, Report, run_engine


class _Pipe:
    """Commands read by a thread of their own, so that an idle engine wakes at once and a busy one never waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
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
            self._connection.send(report)
        except OSError:
            os._exit(0)

    def _read(self) -> None:
        try:
            while True:
                self._commands.put(self._connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # the server is gone: nobody is left to answer, and nothing here is worth saving


def main() -> None:
    """Runs one engine to its end."""
    from qtool.serve.watching.log import configure

    configure()
    connection = Connection(int(sys.argv[1]))
    opener: Opener = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the parent, over a private socket
    pipe = _Pipe(connection)
    run_engine(opener, pipe, pipe.emit)
    sys.stderr.flush()
    os._exit(0)  # torch's and the tokenizer's threads are not waited for


if __name__ == "__main__":
    main()
