"""`serve`: a bundle behind HTTP, ready only when it is what was measured."""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.errors import CapacityError, QtoolError, UsageError
from qtool.records.bundle import Bundle
from qtool.serve.limits import Limits

if TYPE_CHECKING:
    from qtool.serve.deployment import Deployment
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


class Unfinished(QtoolError):
    """The server ended before all requests had their answers."""

    exit_code = 1


def serve(
    bundle: Path,
    *,
    listening: Listening = Listening(),
    name: str | None = None,
    limits: Limits | None = None,
    running: Running = Running(),
) -> None:
    """Serves `bundle` until told to stop. Raises QtoolError when it cannot or may not be served, or lost requests."""
    from qtool.serve.admission.keys import Keys, read_keys
    from qtool.serve.service import Service
    from qtool.serve.supervision.gate import read_bundle

    manifest = read_bundle(bundle)
    failures: list[QtoolError] = []
    leave: list[Callable[[], None]] = []

    def stop(reason: str, exit_code: int) -> None:
        failures.append(_error(reason, exit_code))
        leave[0]()

    keys = read_keys(listening.keys) if listening.keys is not None else Keys()
    if not keys.required and not _is_loopback(listening.host):
        _log.warning("listening on %s without API keys: everybody who reaches this address may ask", listening.host)
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listen(listening.host, listening.port))]
        if listening.admin_port is not None:
            listeners.append(stack.enter_context(listen(listening.host, listening.admin_port)))
        deployment = deploy(bundle, manifest, name=name, limits=limits, running=running, on_failure=stop)
        host = _Server(Service(deployment, keys, listeners[-1].getsockname()[1] if len(listeners) > 1 else None), listening)
        leave.append(host.leave)
        place = listeners[0].getsockname()
        scheme = "https" if listening.tls_certificate else "http"
        _log.info("serving %s (%s) on %s://%s:%s", deployment.model, deployment.variant, scheme, *place[:2])
        host.run(listeners)
    if failures:
        raise failures[0]
    if host.lost:
        raise Unfinished(f"{host.lost} requests were told to come again: the server left before they were answered")


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
        self.lost += self._service.deployment.stop()
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
        deployment = self._service.deployment
        deployment.drain()
        _log.info("draining: %d choices in progress", deployment.places.admitted)
        await deployment.drained()
        left = deployment.places.admitted
        _log.info("drained in %.1f seconds, %d choices left", time.monotonic() - began, left)
        self.leave()


def deploy(
    folder: Path,
    bundle: Bundle,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    running: Running = Running(),
    on_failure: Callable[[str, int], None] = lambda reason, exit_code: None,
) -> "Deployment":
    """The deployment of a bundle, not yet started."""
    from qtool.serve.deployment import Deployment, Identity, Parts
    from qtool.serve.supervision.hosts import ProcessHost
    from qtool.serve.supervision.opening import BundleOpener
    from qtool.serve.supervision.threads import environment
    from qtool.serve.text.vocabulary import BundleVocabulary

    limits = limits or default_limits(bundle)
    opener = BundleOpener(folder.resolve(), bundle, limits.max_running, running.device, running.threads)
    return Deployment(
        Identity(
            name or bundle.name,
            bundle.variant.name,
            f"qtool-{bundle.variant.weights_digest[:12]}",
            int((folder / "bundle.json").stat().st_mtime),
        ),
        Parts(lambda: BundleVocabulary(folder), lambda: ProcessHost(opener, environment(running.threads))),
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
