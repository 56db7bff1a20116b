"""Where an engine lives: a child process (served), or a thread of this one (tests, engines without weights)."""

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from qtool.errors import StoreError
from qtool.serve.supervision.engine_loop import Opener, run_engine
from qtool.serve.supervision.messages import Close, Command, Failed, Report
from qtool.serve.supervision.wire import Channel, Opening

_MODULE = "qtool.serve.supervision.child"
Receive = Callable[[Report | None], None]


class Host(Protocol):
    """One life of an engine. `receive` gets every report in a thread of the host's own, and None once, at its end."""

    @property
    def pid(self) -> int | None: ...

    def start(self, receive: Receive) -> None: ...

    def send(self, command: Command) -> None: ...

    def kill(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...


class ThreadHost:
    """An engine in a daemon thread: it cannot be killed, only forgotten."""

    pid = None

    def __init__(self, open_engine: Opener) -> None:
        self._open_engine = open_engine
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, receive: Receive) -> None:
        """Opens the engine in its thread."""
        self._thread = threading.Thread(target=self._run, args=(receive,), name="qtool-engine", daemon=True)
        self._thread.start()

    def send(self, command: Command) -> None:
        """Queues a command."""
        self._commands.put(command)

    def kill(self) -> None:
        """Asks it to end; nothing more can be done to a thread."""
        self._commands.put(Close())

    def close(self, timeout_s: float) -> None:
        """Ends the thread, waiting at most `timeout_s`."""
        self._commands.put(Close())
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def take(self, timeout_s: float | None) -> Command | None:
        """The engine loop's inbox."""
        try:
            return self._commands.get(block=timeout_s is not None, timeout=timeout_s)
        except queue.Empty:
            return None

    def _run(self, receive: Receive) -> None:
        try:
            run_engine(self._open_engine, self, receive)
        finally:
            receive(None)


class ProcessHost:
    """An engine in a child process that dies with this one. Its environment sets threads before torch is imported."""

    def __init__(self, opening: Opening, environment: dict[str, str] | None = None) -> None:
        self._opening = opening
        self._environment = environment or {}
        self._outgoing: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._receive: Receive | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process else None

    def start(self, receive: Receive) -> None:
        """Starts the child, and one thread for each direction."""
        ours, theirs = socket.socketpair()
        with theirs:
            paths = os.pathsep.join(path for path in sys.path if path)
            environment = {**os.environ, "PYTHONPATH": paths, **self._environment}
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal is for the server, which drains first
            )
        connection = Channel(ours)
        self._receive = receive
        threading.Thread(target=self._write, args=(connection,), name="qtool-to-engine", daemon=True).start()
        threading.Thread(target=self._read, args=(connection,), name="qtool-from-engine", daemon=True).start()

    def send(self, command: Command) -> None:
        """Queues a command; a child that does not read cannot block the caller."""
        self._outgoing.put(command)

    def kill(self) -> None:
        """Ends the child at once."""
        if self._process is not None:
            self._process.kill()

    def close(self, timeout_s: float) -> None:
        """Asks the child to end, and kills it when it has not within `timeout_s`."""
        self._outgoing.put(Close())
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _write(self, connection: Channel) -> None:
        with contextlib.suppress(OSError):  # the child has gone, or the reader closed the connection
            connection.send(self._opening)
            while (command := self._outgoing.get()) is not None:
                connection.send(command)

    def _read(self, connection: Channel) -> None:
        assert self._process is not None  # started just before this thread
        assert self._receive is not None
        last: Report | None = None
        try:
            while True:
                message = connection.receive()
                assert not isinstance(message, Opening | Command)  # a child reports
                last = message
                self._receive(last)
        except (EOFError, OSError):
            pass
        except StoreError as error:  # the process is of no use when it cannot be understood
            self._process.kill()
            last = Failed(str(error), error.exit_code)
            self._receive(last)
        self._outgoing.put(None)
        connection.close()
        code = self._process.wait()
        if code and not isinstance(last, Failed):
            name = f"signal {-code}" if code < 0 else f"exit code {code}"
            self._receive(Failed(f"the engine process ended with {name}", 1))
        self._receive(None)
