"""Keeps one engine alive and fed: its queue, its slots, its heartbeat, and another engine when this one dies."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from qtool.engine.contract import EngineStatus, TokenEvent
from qtool.serve.admission.fair_queue import FairQueue
from qtool.serve.limits import Limits
from qtool.serve.supervision.errands import Desk
from qtool.serve.supervision.hosts import Host
from qtool.serve.supervision.jobs import Job, Lost, Rejected, Started, survivors
from qtool.serve.supervision.messages import (
    Abort,
    Beat,
    Command,
    Compared,
    Errand,
    Failed,
    Looked,
    Opened,
    Phase,
    Refusal,
    Report,
    Submit,
)

_log = logging.getLogger("qtool.serve")
_WATCH_SECONDS = 0.1
_QUICK_DEATHS = 5  # deaths without one answer in between, after which the engine is held to be broken
_SHORTEST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Told in the event loop: how far opening has come; that it answers; that it died (reason, exit code, for good)."""

    phase: Callable[[str], None]
    opened: Callable[[Opened], None]
    died: Callable[[str, int, bool], None]


class Supervisor:
    """All methods are called in the event loop's thread; only `_receive` is not."""

    def __init__(
        self,
        make_host: Callable[[], Host],
        watch: Watch,
        *,
        limits: Limits,
        expecting: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make_host = make_host
        self._watch = watch
        self._slots = limits.max_running
        self._stall_seconds = limits.stall_seconds
        self._window_seconds = limits.window_seconds
        self._expecting = expecting
        self._window: asyncio.TimerHandle | None = None
        self._queue = FairQueue()
        self._running: dict[int, Job] = {}
        self._desk = Desk()
        self._host: Host | None = None
        self._life = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._next = 0
        self._barren_deaths = 0
        self._beat_s = time.monotonic()
        self._closing = False
        self.answering = False
        self.broken = False
        self.restarts = 0
        self.steps = 0
        self.opened: Opened | None = None
        self.beat = Beat()

    # what others ask

    @property
    def capacity(self) -> EngineStatus | None:
        """What the engine holds; known from its first opening on."""
        return self.opened.status if self.opened else None

    @property
    def waiting(self) -> int:
        """Jobs not yet in the batch."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Jobs in the batch."""
        return len(self._running)

    @property
    def pid(self) -> int | None:
        """The engine's process, where it has one of its own."""
        return self._host.pid if self._host else None

    @property
    def silent_seconds(self) -> float:
        """Seconds since the engine last told anything."""
        return time.monotonic() - self._beat_s

    @property
    def patience_seconds(self) -> float:
        """Silence after which the engine counts as hung: longer where its own steps were seen to be slow."""
        slowest = self.opened.slowest_step_seconds if self.opened else 0.0
        return max(self._stall_seconds, 4 * slowest)

    def ahead_of(self, key: str) -> int:
        """Jobs that would start before a new one of `key`."""
        free = self._slots - len(self._running)
        return max(self._queue.ahead_of(key) + 1 - free, 0) if self.answering else 0

    # jobs

    def submit(self, job: Job) -> None:
        """Puts `job` into the queue, and into the batch where there is room."""
        if self.broken or self._closing:
            job.deliver(Lost())
            return
        if self.answering and not self._queue and len(self._running) < self._slots:
            job.start_by_s = job.deadline_s  # its turn is now, however long it took to be read and tokenized
        self._queue.push(job)
        # an idle engine waits a moment for requests that are being prepared: they begin together, not one step apart
        if not self._running and self._window_seconds and self._expecting() and self._loop is not None:
            if self._window is None:
                self._window = self._loop.call_later(self._window_seconds, self._fill)
            return
        self._fill()

    def abort(self, job: Job) -> None:
        """Ends `job` wherever it is; one that has ended is left alone. No further events matter."""
        if self._queue.remove(job):
            return
        if job.number is not None and self._running.pop(job.number, None) is job:
            self._send(Abort(job.number))
            self._fill()

    async def errand(self, make: Callable[[int], Errand]) -> Looked | Compared | None:
        """What the engine makes of an errand, when it has nothing better to do; None where it cannot."""
        if not self.answering:
            return None
        number = self._number()
        return await self._desk.wait(number, lambda: self._send(make(number)))

    # lives

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Opens the engine; events go to `loop`."""
        self._loop = loop
        self._begin()
        self._spawn(self._guard())

    def kill(self) -> None:
        """Ends the engine at once, as a fault would; another one is started."""
        if self._host is not None:
            self._host.kill()

    def lose_all(self) -> None:
        """Tells every job that it is lost: the server goes down now."""
        self._closing = True
        for job in [*self._running.values(), *self._queue]:
            job.deliver(Lost())
        self._running.clear()
        self._queue = FairQueue()

    def close(self, timeout_s: float) -> None:
        """Drops what runs and frees the engine."""
        self.lose_all()
        for task in self._tasks:
            task.cancel()
        if self._host is not None:
            self._host.close(timeout_s)

    def _begin(self) -> None:
        self._life += 1
        life = self._life
        self._beat_s = time.monotonic()
        self._host = self._make_host()
        self._host.start(lambda report: self._receive(life, report))

    def _receive(self, life: int, report: Report | None) -> None:
        """In the host's thread: one call into the event loop for all events of a step."""
        if life == self._life:
            self._beat_s = time.monotonic()
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._take, life, report)
            except RuntimeError:  # closed in between: the server has ended
                return

    def _take(self, life: int, report: Report | None) -> None:
        if life != self._life or self._closing:
            return
        if isinstance(report, tuple):
            self.steps += 1
            for event in report:
                self._pass_on(event)
            self._fill()
        elif isinstance(report, Refusal):
            job = self._running.pop(report.number, None)
            if job is not None:
                job.deliver(Rejected(report.reason))
            self._fill()
        elif isinstance(report, Looked | Compared):
            self._desk.answered(report)
        elif isinstance(report, Beat):
            self.beat = report if report.status is not None else self.beat
        elif isinstance(report, Phase):
            self._watch.phase(report.name)
        elif isinstance(report, Opened):
            self.opened = report
            self._slots = min(self._slots, report.status.slots)
            self.answering = True
            self.broken = False
            self._watch.opened(report)
            self._fill()
        elif isinstance(report, Failed):
            self._die(report.reason, report.exit_code)
        elif report is None:
            self._die("the engine ended without a word; its last lines are in the log", 1)

    def _pass_on(self, event: TokenEvent) -> None:
        job = self._running.get(event.request)
        if job is None:
            return
        if event.finish is not None:
            del self._running[event.request]
            self._barren_deaths = 0
        job.deliver(event)

    def _fill(self) -> None:
        """Moves waiting jobs into the batch while there are slots."""
        if self._window is not None:
            self._window.cancel()
            self._window = None
        while self._queue and self.answering and len(self._running) < self._slots:
            job = self._queue.pop()
            now = time.monotonic()
            if job.is_over(now):
                continue
            job.number = self._number()
            self._running[job.number] = job
            self._send(Submit(job.number, job.request))
            job.deliver(Started(now))

    def _die(self, reason: str, exit_code: int) -> None:
        """The engine of this life is no more. Its jobs run again where no client has seen a part of the answer."""
        opened_once = self.opened is not None
        self._life += 1  # what the dead one still says is not heard
        self.answering = False
        self._barren_deaths += 1
        self.broken = not opened_once or self._barren_deaths > _QUICK_DEATHS
        host, self._host = self._host, None
        if host is not None:
            host.kill()
        self._desk.lose_all()
        self._watch.died(reason, exit_code, not opened_once)
        running, self._running = list(self._running.values()), {}
        for job in survivors(running, repeat=not self.broken):
            self._queue.push(job, first=True)
        for job in list(self._queue):
            if self.broken:
                self._queue.remove(job)
                job.deliver(Lost())
            else:
                job.start_by_s = job.deadline_s  # it waits for the next engine, not for its turn
        if opened_once:
            self._spawn(self._restart())

    async def _restart(self) -> None:
        exponent = max(self._barren_deaths - 1, 0)
        wait = min(_SHORTEST_WAIT_SECONDS * 4**exponent, _LONGEST_WAIT_SECONDS)
        _log.warning("starting another engine in %.2f seconds", wait)
        await asyncio.sleep(wait)
        self.restarts += 1
        self._begin()

    async def _guard(self) -> None:
        """Sheds what waits too long, and ends an engine that has gone silent."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for job in [job for job in self._queue if job.is_over(now)]:
                self._queue.remove(job)
            if self.answering and self.silent_seconds > self.patience_seconds:
                self._die(f"the engine has been silent for {self.silent_seconds:.1f} seconds", 1)

    def _number(self) -> int:
        self._next += 1
        return self._next

    def _send(self, command: Command) -> None:
        if self._host is not None:
            self._host.send(command)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        assert self._loop is not None  # started
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
