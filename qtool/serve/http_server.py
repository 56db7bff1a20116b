"""uvicorn around one service: its sockets, and what signals do to it."""

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
import time
from typing import TYPE_CHECKING

from qtool.errors import CapacityError, UsageError
from qtool.serve.options import Listening

if TYPE_CHECKING:
    from qtool.serve.service import Service

_log = logging.getLogger("qtool.serve")
_LEAVE_SECONDS = 1.0


class HttpServer:
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


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
