"""HTTP connections: how many, how long a head may take, and errors in JSON before a request exists."""

import asyncio
import json
import logging
import resource
import time
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from qtool.serve.api.refusal import Refused
from qtool.serve.limits import Limits

_log = logging.getLogger("qtool.serve")
_RESERVED_DESCRIPTORS = 64  # files, sockets to engines and upstreams, and what libraries open


class Connections:
    """What all connections of a server share."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        descriptors = _descriptors()
        self.most = min(limits.max_connections, max(descriptors - _RESERVED_DESCRIPTORS, descriptors // 2))
        self.open = 0
        self.idle: dict[_Protocol, None] = {}  # no request in progress; the one idle for longest is first
        self.refused = 0
        self.broken_heads = 0

    def make_room(self) -> bool:
        """Closes the connection that has been idle for longest; False where all are in use. Without this a hundred
        connections that say nothing would keep everybody out, probes included."""
        oldest = next(iter(self.idle), None)
        if oldest is None:
            return False
        del self.idle[oldest]
        oldest.transport.close()
        return True

    def protocol(self) -> type[H11Protocol]:
        """The protocol class that uvicorn makes one of for each connection."""
        shared = self

        class Protocol(_Protocol):
            connections_shared = shared

        return Protocol


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with a limit on connections and on the time that a request's head may take."""

    connections_shared: Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        shared = self.connections_shared
        shared.open += 1
        self._head_timer: asyncio.TimerHandle | None = None
        if shared.open > shared.most and not shared.make_room():
            shared.refused += 1
            self._answer(Refused(503, "too many connections", outcome="shed", retry_after=1))
            return
        shared.idle[self] = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections_shared.open -= 1
        self.connections_shared.idle.pop(self, None)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self.connections_shared.idle.pop(self, None)
            self._stop_timer()
        elif self._head_timer is None and not self.transport.is_closing():
            self._await_head()  # the next request's head has begun: it gets its own time

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.connections_shared.idle[self] = None

    def send_400_response(self, msg: str) -> None:
        self.connections_shared.broken_heads += 1
        self._answer(Refused(400, "not a valid HTTP request"))

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.connections_shared.limits.header_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            seconds = self.connections_shared.limits.header_seconds
            self._answer(Refused(408, f"no complete request head within {seconds:g} seconds"))

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _answer(self, refused: Refused) -> None:
        """Writes a refusal past h11, whose state may not allow one, and closes."""
        body = json.dumps(refused.body()).encode()
        retry = f"retry-after: {refused.retry_after}\r\n" if refused.retry_after is not None else ""
        head = f"HTTP/1.1 {refused.status} Refused\r\ncontent-type: application/json\r\n{retry}connection: close\r\n"
        self.transport.write(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()


def quiet_exceptions(loop: asyncio.AbstractEventLoop) -> None:
    """Faults of the event loop are logged as one line, and a repeated one at most once per second."""
    last: dict[str, float] = {}
    repeated: dict[str, int] = {}

    def report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message = str(context.get("message", "fault in the event loop"))
        now = time.monotonic()
        repeated[message] = repeated.get(message, 0) + 1
        if now - last.get(message, 0.0) < 1.0:
            return
        last[message] = now
        count, repeated[message] = repeated[message], 0
        cause = context.get("exception")
        known = isinstance(cause, OSError)
        _log.error("%s (%d times): %r", message, count, cause, exc_info=None if known else cause)

    loop.set_exception_handler(report)


def _descriptors() -> int:
    """File descriptors this process may open: the soft limit is first raised as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft
