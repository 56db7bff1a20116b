"""One served variant: its engine under a supervisor, its vocabulary, its places and its metrics."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtool.engine.contract import EngineStatus
from qtool.errors import QtoolError
from qtool.serve.admission.places import Places
from qtool.serve.api.refusal import leaving, shed
from qtool.serve.limits import Limits
from qtool.serve.routing.breaker import Breaker, Thresholds
from qtool.serve.supervision.hosts import Host
from qtool.serve.supervision.messages import KERNELS_AS_MEASURED, Opened
from qtool.serve.supervision.readiness import Readiness
from qtool.serve.supervision.supervisor import Supervisor, Watch
from qtool.serve.watching.metrics import Metrics

if TYPE_CHECKING:
    from qtool.serve.text.exchange import Exchange
    from qtool.serve.text.vocabulary import Vocabulary
    from qtool.serve.watching.drift import Drift

_log = logging.getLogger("qtool.serve")
_CLOSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a variant is called: the name clients ask for, its own, its fingerprint, when it was made (Unix seconds)."""

    model: str
    variant: str
    fingerprint: str
    created: int


@dataclass(frozen=True, slots=True)
class Parts:
    """How a deployment comes to life: its tokenizer, opened once, and a host for each life of its engine."""

    open_vocabulary: "Callable[[], Vocabulary]"
    make_host: Callable[[], Host]


class Deployment:
    """A variant being served under a model name."""

    def __init__(
        self,
        identity: Identity,
        parts: Parts,
        limits: Limits,
        *,
        on_failure: Callable[[str, int], None] = lambda reason, exit_code: None,
    ) -> None:
        self.model = identity.model
        self.variant = identity.variant
        self.fingerprint = identity.fingerprint
        self.created = identity.created
        self.limits = limits
        self.readiness = Readiness()
        self.places = Places(limits.max_running, limits.max_queue, queue_seconds=limits.queue_seconds)
        self.metrics = Metrics(identity.model, identity.variant, identity.fingerprint)
        self.preparing = ThreadPoolExecutor(1, thread_name_prefix="qtool-prompts")
        self.exchanges: set[Exchange] = set()
        self.breaker = Breaker(Thresholds())
        self.drift: Drift | None = None
        self._open_vocabulary = parts.open_vocabulary
        self._on_failure = on_failure
        self._vocabulary: Vocabulary | None = None
        self._opened: Opened | None = None
        self._opening: asyncio.Task[None] | None = None
        self.supervisor = Supervisor(
            parts.make_host,
            Watch(self._enter, self._engine_opened, self._engine_died),
            limits=limits,
            expecting=lambda: self.places.admitted > self.supervisor.waiting + self.supervisor.running,
        )
        self.metrics.follow(self.supervisor, slots=limits.max_running, queue=limits.max_queue)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every answer: which variant gave it."""
        return {"x-qtool-variant": self.variant}

    @property
    def vocabulary(self) -> "Vocabulary":
        """The tokenizer. Raises Refused (503) while requests are not answered."""
        if self._vocabulary is None or not self.readiness.ready:
            raise shed(f"not ready: {self.readiness.state.phase}", self.places.retry_after())
        return self._vocabulary

    @property
    def vocabulary_in_use(self) -> "Vocabulary":
        """The tokenizer for answers in progress, also while draining."""
        assert self._vocabulary is not None  # a request was prepared with it
        return self._vocabulary

    @property
    def capacity(self) -> EngineStatus:
        """What the engine holds. Raises Refused (503) while nobody knows."""
        if self.supervisor.capacity is None:
            raise shed(f"not ready: {self.readiness.state.phase}", self.places.retry_after())
        return self.supervisor.capacity

    @property
    def context_tokens(self) -> int | None:
        """Prompt and answer together; None while nobody knows."""
        return self.supervisor.capacity.context_tokens if self.supervisor.capacity else None

    def healthy(self) -> tuple[bool, str]:
        """Whether the engine does its rounds, and a word why not. Load and first loading never make this false."""
        supervisor = self.supervisor
        if self.readiness.state.phase == "failed" or supervisor.broken:
            return False, "the engine has failed"
        if self._opened is not None and not supervisor.answering:
            return False, "the engine stopped; another one is being started"
        if supervisor.answering and supervisor.silent_seconds > supervisor.patience_seconds:
            return False, f"the engine has been silent for {supervisor.silent_seconds:.0f} seconds"
        return True, "ok"

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to verify, load and warm up; /ready tells how far it is."""
        self.supervisor.start(loop)
        self._opening = loop.create_task(self._load_vocabulary())

    def begin(self, exchange: "Exchange") -> None:
        """Starts a request, and remembers it until `end`."""
        self.exchanges.add(exchange)
        exchange.start(self.supervisor)

    def end(self, exchange: "Exchange") -> None:
        """The request has its answer, or its client has gone."""
        self.exchanges.discard(exchange)

    def drain(self) -> None:
        """Refuses new requests from now on; those that are in go on."""
        self.places.draining = True
        self._enter("draining")

    async def drained(self) -> None:
        """Returns when no request is left, or when the time for that is over."""
        try:
            async with asyncio.timeout(self.limits.drain_seconds):
                while self.places.admitted:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return

    def stop(self) -> int:
        """Tells every request in progress that the server leaves now; how many there were."""
        exchanges = list(self.exchanges)
        for exchange in exchanges:
            exchange.stop(leaving())
        return len(exchanges)

    def close(self) -> None:
        """Ends the engine."""
        if self._opening is not None:
            self._opening.cancel()
        self.supervisor.close(_CLOSE_SECONDS)
        self.preparing.shutdown(wait=False, cancel_futures=True)

    async def _load_vocabulary(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._vocabulary = await loop.run_in_executor(self.preparing, self._open_vocabulary)
        except QtoolError as error:
            self._fail(str(error), error.exit_code)
            return
        self._become_ready()

    def _enter(self, phase: str, reason: str = "") -> None:
        self.readiness.enter(phase, reason)
        self.metrics.ready(self.readiness.ready)

    def _engine_opened(self, opened: Opened) -> None:
        self._opened = opened
        kernels = dict(opened.facts).get("kernels", KERNELS_AS_MEASURED)
        self.metrics.other_kernels(kernels != KERNELS_AS_MEASURED)
        if kernels != KERNELS_AS_MEASURED:
            _log.warning("kernels: %s", kernels)
        self._become_ready()

    def _become_ready(self) -> None:
        if self._opened is None or self._vocabulary is None:
            return
        self.readiness.facts = (*self._opened.facts, ("restarts", str(self.supervisor.restarts)))
        self._enter("ready")
        _log.info("ready: %s", ", ".join(f"{name} {value}" for name, value in self.readiness.facts))

    def _engine_died(self, reason: str, exit_code: int, for_good: bool) -> None:
        _log.error("engine lost: %s", reason)
        self.metrics.restarted()
        if for_good:
            self._fail(reason, exit_code)
        else:
            self._enter("restarting the engine", "the engine stopped; the log says why")

    def _fail(self, reason: str, exit_code: int) -> None:
        self._enter("failed", reason)
        self._on_failure(reason, exit_code)
