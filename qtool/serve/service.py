"""What one HTTP server shares among its requests: the name it serves, its limits, its doors, who answers."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from qtool.serve.admission.connections import Connections
from qtool.serve.admission.keys import Keys
from qtool.serve.api.body import Reading
from qtool.serve.api.refusal import Refused
from qtool.serve.deployment import Deployment
from qtool.serve.routing.router import Router
from qtool.serve.watching.load import process_registry
from qtool.serve.watching.metrics import exposition
from qtool.serve.watching.sampling import Samples
from qtool.serve.watching.second_look import SecondLook

if TYPE_CHECKING:
    from qtool.serve.watching.tracing import Tracing

_PACE_SECONDS = 0.05


class Service:
    """A model name and the variant that answers for it."""

    def __init__(self, first: Deployment | Router, keys: Keys | None = None, admin_port: int | None = None) -> None:
        self.router = first if isinstance(first, Router) else Router([first])
        self.keys = keys or Keys()
        self.admin_port = admin_port
        self.first = self.router.backends[0]
        self.limits = self.first.limits
        self.connections = Connections(self.first.limits)
        self.reading = Reading()
        self.samples: Samples | None = None
        self.second_look: SecondLook | None = None
        self.vllm_metrics = False
        self.tracing: Tracing | None = None
        self._processes = process_registry(self._engine_pid)
        self._pacing: asyncio.Task[None] | None = None
        self.decoding = ThreadPoolExecutor(1, thread_name_prefix="qtool-bodies")

    @property
    def model(self) -> str:
        """The name clients ask for."""
        return self.first.model

    @property
    def deployment(self) -> Deployment:
        """The first rung, where it is an engine of this server. Raises Refused (404) where it is another server."""
        if not isinstance(self.first, Deployment):
            raise Refused(404, "this server is a gateway; ask the servers behind it")
        return self.first

    def text(self) -> bytes:
        """All series of all variants in Prometheus' text format."""
        metrics = [backend.metrics for backend in self.router.backends]
        return exposition(metrics, vllm=self.vllm_metrics, more=[self._processes])

    def check_places(self) -> None:
        """Raises Refused (503) where nobody can be admitted, before a body is read."""
        if len(self.router.backends) == 1:
            self.first.places.check()
        else:
            self.first.places.check_draining()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts every variant."""
        for backend in self.router.backends:
            backend.start(loop)
        if self.second_look is not None:
            self.second_look.start(loop)
        self._pacing = loop.create_task(self._feel_lag())

    def drain(self) -> None:
        """Refuses new requests from now on."""
        for backend in self.router.backends:
            backend.drain()

    async def drained(self) -> None:
        """Returns when no variant has a request left, or time is over."""
        await asyncio.gather(*(backend.drained() for backend in self.router.backends))

    def stop(self) -> int:
        """Ends the requests in progress; how many there were."""
        return sum(backend.stop() for backend in self.router.backends)

    def close(self) -> None:
        """Frees what is shared; the variants are closed too."""
        for backend in self.router.backends:
            backend.close()
        if self.samples is not None:
            self.samples.close()
        if self.second_look is not None:
            self.second_look.close()
        if self._pacing is not None:
            self._pacing.cancel()
        self.decoding.shutdown(wait=False, cancel_futures=True)

    def _engine_pid(self) -> int | None:
        return self.first.supervisor.pid if isinstance(self.first, Deployment) else None

    async def _feel_lag(self) -> None:
        """How late the event loop runs, for those who estimate waits: on a machine without spare cores a request may
        have waited in its socket before anybody knew of it."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(_PACE_SECONDS)
            self.keys.refresh()
            late = max(time.monotonic() - before - _PACE_SECONDS, 0.0)
            for backend in self.router.backends:
                backend.places.lag_seconds = max(late, 0.8 * backend.places.lag_seconds)

    def quality(self) -> dict[str, object]:
        """What /admin/quality tells: drift and shadow scores of each variant."""
        drift = {
            backend.variant: backend.drift.body()
            for backend in self.router.backends
            if isinstance(backend, Deployment) and backend.drift is not None
        }
        looks = self.second_look.body() if self.second_look is not None else {}
        breakers = {backend.variant: backend.breaker.state for backend in self.router.backends}
        return {"drift": drift, **looks, "breakers": breakers}
