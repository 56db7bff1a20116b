"""A server on a real port around the fake engine."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
from fake_engine import FakeEngine, FakeVocabulary

from qtool.engine.contract import Engine
from qtool.serve.deployment import Deployment, Identity, Parts
from qtool.serve.limits import Limits
from qtool.serve.service import Service
from qtool.serve.supervision.hosts import Host, ThreadHost
from qtool.serve.supervision.messages import Opened

IDENTITY = Identity("m", "w8a16", "qtool-abc", 1)


def threaded(
    make_engine: Callable[[], Engine], prepare: Callable[[Callable[[str], None]], object] = lambda phase: None
) -> Callable[[], Host]:
    """Makes a host whose engine lives in a thread of the test; `prepare` runs before it answers."""

    def open_engine(phase: Callable[[str], None]) -> tuple[Engine, Opened]:
        engine = make_engine()
        try:
            prepare(phase)
        except BaseException:
            engine.close()
            raise
        return engine, Opened(engine.status(), (("threads", "1"),))

    return lambda: ThreadHost(open_engine)


@dataclass
class Running:
    """A server in a thread, its parts within reach."""

    service: Service
    engine: FakeEngine
    address: str
    port: int
    client: httpx.Client = field(repr=False)
    stop: Callable[[], None] = field(repr=False, default=lambda: None)

    @property
    def deployment(self) -> Deployment:
        """The variant that answers."""
        return self.service.deployment

    def complete(self, **body: object) -> httpx.Response:
        """POST /v1/completions with defaults that make a short greedy answer."""
        return self.client.post("/v1/completions", json={"model": "m", "prompt": "hi", "temperature": 0, **body})

    def chat(self, content: str = "hi", **body: object) -> httpx.Response:
        """POST /v1/chat/completions with one user message."""
        messages = [{"role": "user", "content": content}]
        base = {"model": "m", "messages": messages, "temperature": 0, "max_tokens": 8}
        return self.client.post("/v1/chat/completions", json={**base, **body})

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series, with the labels of the served variant and those given."""
        wanted = {"model": "m", "variant": "w8a16", **labels}
        text = ",".join(f'{key}="{wanted[key]}"' for key in sorted(wanted))
        found = self.client.get("/metrics").text
        line = f"\n{name}{{{text}}} "
        assert line in found, line
        return float(found.partition(line)[2].partition("\n")[0])

    def counted(self, outcome: str) -> float:
        """Requests counted in the class `outcome`."""
        return self.metric("qtool_requests_total", **{"class": outcome})

    def wait_idle(self, seconds: float = 5.0) -> None:
        """Returns when nothing is admitted, queued or running: no leak."""
        supervisor = self.deployment.supervisor
        wait_for(lambda: not (self.deployment.places.admitted or supervisor.running), seconds)
        wait_for(lambda: supervisor.waiting == 0, seconds)
        wait_for(lambda: not self.deployment.exchanges and self.service.reading.held_bytes == 0, seconds)
        wait_for(lambda: self.engine.status().slots_free == self.engine.slots, seconds)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Polls `condition`; fails the test when it stays false."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "condition not met in time"
        time.sleep(0.005)


@contextlib.contextmanager
def running_server(
    engine: FakeEngine,
    *,
    limits: Limits | None = None,
    warm: bool = True,
    make_host: Callable[[], Host] | None = None,
) -> Iterator[Running]:
    """Serves `engine` on a free port until the block ends; `make_host` gives each life of the engine."""
    parts = Parts(FakeVocabulary, make_host or threaded(lambda: engine))
    limits = limits or Limits(queue_seconds=60.0)  # machines that run tests are slow; the tests of time say so
    service = Service(Deployment(IDENTITY, parts, limits))
    with serving(service, engine) as running:
        if warm:
            wait_for(lambda: service.deployment.readiness.ready)
        yield running


@contextlib.contextmanager
def serving(service: Service, engine: FakeEngine) -> Iterator[Running]:
    """A service on a free port until the block ends."""
    import uvicorn

    from qtool.serve.app import build
    from qtool.serve.http_server import listen

    limits = service.limits
    config = uvicorn.Config(
        build(service),
        log_config=None,
        access_log=False,
        http=service.connections.protocol(),
        loop="asyncio",
        h11_max_incomplete_event_size=limits.max_header_bytes,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: server.started)
        with httpx.Client(base_url=address, timeout=20) as client:
            yield Running(service, engine, address, port, client)
        engine.hold.set()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
