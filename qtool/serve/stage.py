"""`serve`: a bundle behind HTTP, ready only when it is what was measured."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.errors import CapacityError, QtoolError, UsageError
from qtool.records.bundle import Bundle
from qtool.serve.admission.keys import Keys, read_keys
from qtool.serve.limits import Limits
from qtool.serve.routing.breaker import Breaker, Thresholds
from qtool.store import layout

if TYPE_CHECKING:
    from qtool.serve.deployment import Deployment
    from qtool.serve.routing.router import Router
    from qtool.serve.service import Service

_log = logging.getLogger("qtool.serve")
_LEAVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients reach the server, and with what: a file of keys, TLS, a port apart for metrics."""

    host: str = "127.0.0.1"
    port: int = 8000
    admin_port: int | None = None
    keys: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """How the engine runs: its device, and its threads (None: as many as are fastest)."""

    device: str = "auto"
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """Who else answers: a canary beside the bundle, further rungs below it, servers to fall back to.

    `margin` is the loss of quality that a canary may have, `alpha` the risk of deciding wrongly.
    """

    canary: Path | None = None
    canary_share: float = 0.1
    canary_automatic: bool = False
    margin: float = 0.02
    alpha: float = 0.05
    rungs: tuple[Path, ...] = ()
    fallback_urls: tuple[str, ...] = ()
    breaker: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True)
class Watching:
    """What is kept of the traffic: samples in a folder, for a share of the requests; answers that `reference` (a
    bundle) reads again, for another share; whether metrics have vLLM's names as well."""

    samples: Path | None = None
    sample_rate: float = 0.01
    reference: Path | None = None
    shadow_rate: float = 0.01
    vllm_metrics: bool = False


class Unfinished(QtoolError):
    """The server ended before all requests had their answers."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that `serve` may be told beside the bundle."""

    listening: Listening = field(default_factory=Listening)
    running: Running = field(default_factory=Running)
    routing: Routing = field(default_factory=Routing)
    watching: Watching = field(default_factory=Watching)
    name: str | None = None
    limits: Limits | None = None


def serve(bundle: Path | None, serving: Serving, *, upstream: Sequence[str] = ()) -> None:
    """Serves `bundle`, or the servers at `upstream` behind the same gateway, until told to stop.

    Raises QtoolError when it cannot or may not be served, or lost requests.
    """
    from qtool.serve.service import Service
    from qtool.serve.watching.sampling import Samples
    from qtool.serve.watching.shadow import Shadow

    listening, watching = serving.listening, serving.watching
    failures: list[QtoolError] = []
    leave: list[Callable[[], None]] = []

    def stop(reason: str, exit_code: int) -> None:
        failures.append(_error(reason, exit_code))
        leave[0]()

    keys = read_keys(listening.keys) if listening.keys is not None else Keys()
    if not keys.required and not _is_loopback(listening.host):
        _log.warning("listening on %s without API keys: everybody who reaches this address may ask", listening.host)
    with contextlib.ExitStack() as stack:
        listeners = _listeners(listening, stack)
        admin_port = listeners[1].getsockname()[1] if len(listeners) > 1 else None
        service = Service(router(bundle, serving, upstream=upstream, on_failure=stop), keys, admin_port)
        if watching.samples is not None:
            service.samples = Samples(watching.samples, rate=watching.sample_rate)
        service.vllm_metrics = watching.vllm_metrics
        if watching.reference is not None:
            reference = _rung(watching.reference, serving, _other_failed)
            service.shadow = Shadow(reference, rate=watching.shadow_rate)
        server = _Server(service, listening)
        leave.append(server.leave)
        place = listeners[0].getsockname()
        scheme = "https" if listening.tls_certificate else "http"
        variants = ", ".join(backend.variant for backend in service.router.backends)
        _log.info("serving %s (%s) on %s://%s:%s", service.model, variants, scheme, *place[:2])
        server.run(listeners)
    if failures:
        raise failures[0]
    if server.lost:
        raise Unfinished(f"{server.lost} requests were told to come again: the server left before they were answered")


def _listeners(listening: Listening, stack: contextlib.ExitStack) -> list[socket.socket]:
    ports = [listening.port] if listening.admin_port is None else [listening.port, listening.admin_port]
    return [stack.enter_context(listen(listening.host, port)) for port in ports]


def router(
    bundle: Path | None,
    serving: Serving,
    *,
    upstream: Sequence[str] = (),
    on_failure: Callable[[str, int], None] = lambda reason, exit_code: None,
) -> "Router":
    """All variants that answer, none started yet. Only the first one's failure ends the server."""
    from qtool.serve.routing.canary import Canary
    from qtool.serve.routing.router import Backend, Router
    from qtool.serve.routing.upstream import Upstream

    routing = serving.routing
    if (bundle is None) == (not upstream):
        raise UsageError("give either a bundle or --upstream")
    rungs: list[Backend] = []
    if bundle is not None:
        rungs.append(_rung(bundle, serving, on_failure))
    else:
        rungs.append(Upstream(serving.name, upstream, serving.limits or Limits()))
    model = rungs[0].model
    below = replace(serving, name=model)
    rungs += [_rung(folder, below, _other_failed) for folder in routing.rungs]
    if routing.fallback_urls:
        rungs.append(Upstream(model, routing.fallback_urls, rungs[0].limits, variant="fallback"))
    candidate = _rung(routing.canary, below, _other_failed) if routing.canary is not None else None
    canary = None
    if candidate is not None:
        canary = Canary(
            share=routing.canary_share,
            margin=routing.margin,
            alpha=routing.alpha,
            automatic=routing.canary_automatic,
        )
    found = Router(rungs, candidate=candidate, canary=canary)
    names = [backend.variant for backend in found.backends]
    if len(set(names)) < len(names):
        raise UsageError(f"two variants have the same name ({', '.join(names)}); answers could not be told apart")
    for backend in found.backends:
        backend.breaker = Breaker(routing.breaker)
    return found


def _rung(folder: Path, serving: Serving, on_failure: Callable[[str, int], None]) -> "Deployment":
    from qtool.serve.supervision.gate import read_bundle

    manifest = read_bundle(folder)
    return deploy(
        folder, manifest, name=serving.name, limits=serving.limits, running=serving.running, on_failure=on_failure
    )


def _other_failed(reason: str, exit_code: int) -> None:
    _log.error("a further variant failed and is passed over: %s", reason)


class _Server:
    """uvicorn around one service, and what signals do to it."""

    def __init__(self, service: "Service", listening: Listening) -> None:
        import uvicorn

        from qtool.serve.app import build

        self._service = service
        self._drain: asyncio.Task[None] | None = None
        self.lost = 0
        config = uvicorn.Config(
            build(service, on_start=self._on_signals),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=service.limits.max_header_bytes,
            http=service.connections.protocol(),
            ws="none",
            loop="asyncio",
            timeout_keep_alive=int(service.limits.idle_seconds),
            ssl_certfile=listening.tls_certificate,
            ssl_keyfile=listening.tls_key,
            timeout_graceful_shutdown=_LEAVE_SECONDS,  # type: ignore[arg-type]  # a float is waited for as it is
        )
        self._server: uvicorn.Server = uvicorn.Server(config)

    def run(self, listeners: list[socket.socket]) -> None:
        """Serves until `leave`."""
        self._server.run(sockets=listeners)

    def leave(self) -> None:
        """Ends the server now: requests in progress are told so."""
        self.lost += self._service.stop()
        self._server.should_exit = True

    def _on_signals(self) -> None:
        """First signal: refuse new work, finish what runs, then leave. Second: leave at once."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if self._drain is None:
                self._drain = loop.create_task(self._drained())
            else:
                _log.warning("second signal: leaving at once")
                self.leave()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)

    async def _drained(self) -> None:
        began = time.monotonic()
        service = self._service
        service.drain()
        _log.info("draining")
        await service.drained()
        left = sum(backend.places.admitted for backend in service.router.backends)
        _log.info("drained in %.1f seconds, %d choices left", time.monotonic() - began, left)
        self.leave()


def deploy(
    folder: Path,
    bundle: Bundle,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    running: Running | None = None,
    on_failure: Callable[[str, int], None] = lambda reason, exit_code: None,
) -> "Deployment":
    """The deployment of a bundle, not yet started."""
    from qtool.serve.deployment import Deployment, Identity, Parts
    from qtool.serve.supervision.hosts import ProcessHost
    from qtool.serve.supervision.opening import opening
    from qtool.serve.supervision.threads import environment
    from qtool.serve.text.vocabulary import BundleVocabulary

    limits = limits or default_limits(bundle)
    running = running or Running()
    how = opening(folder, slots=limits.max_running, device=running.device, threads=running.threads)
    return Deployment(
        Identity(
            name or bundle.name,
            bundle.variant.name,
            f"qtool-{bundle.variant.weights_digest[:12]}",
            int((folder / layout.BUNDLE).stat().st_mtime),
        ),
        Parts(lambda: BundleVocabulary(folder), lambda: ProcessHost(how, environment(running.threads))),
        limits,
        on_failure=on_failure,
    )


def default_limits(bundle: Bundle) -> Limits:
    """The server's limits, with as many answers together as were measured to be best.

    The bundle's `max_queue` counts what the measuring machine answered in ten seconds: here only time bounds a queue.
    """
    limits = Limits()
    return replace(
        limits, max_running=bundle.runtime.max_batch, max_queue=min(bundle.runtime.max_queue, limits.max_queue)
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CapacityError when the port is taken, UsageError when it cannot be had."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        # without the protocol asyncio does not set TCP_NODELAY, and every answer waits 40 ms for an acknowledgement
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CapacityError(
                f"port {port} on {host} is in use; stop what holds it or choose another --port"
            ) from error
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _error(reason: str, exit_code: int) -> QtoolError:
    """The failure of an engine's process, as the error that it was there."""
    error = QtoolError(reason)
    error.exit_code = exit_code
    return error
