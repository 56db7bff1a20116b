"""Server-sent events: keep-alive comments while nothing happens, an end when the client leaves or reads too slowly."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_GRACE_SECONDS = 5.0
_COMMENT = b": still working\n\n"


class EventStream(Response):
    """Sends `events` until they end. `on_end` is called exactly once, with whether the client got all of them."""

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str],
        keep_alive_seconds: float,
        most_seconds: float,
        on_end: Callable[[bool], None],
    ) -> None:
        super().__init__(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._keep_alive_seconds = keep_alive_seconds
        self._most_seconds = most_seconds + _GRACE_SECONDS
        self._on_end = on_end
        self._sent_s = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send(send))
        others = [asyncio.create_task(disconnected(receive)), asyncio.create_task(self._keep_alive(send))]
        complete = False
        try:
            await asyncio.wait({sending, others[0]}, timeout=self._most_seconds, return_when=asyncio.FIRST_COMPLETED)
            complete = sending.done()
        finally:
            for task in (sending, *others):
                task.cancel()
            await asyncio.gather(sending, *others, return_exceptions=True)
            self._on_end(complete)
        if complete:
            sending.result()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            self._sent_s = time.monotonic()
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        """A comment whenever nothing was sent for a while: proxies close connections that are silent."""
        while True:
            silent = time.monotonic() - self._sent_s
            if silent >= self._keep_alive_seconds:
                self._sent_s = time.monotonic()
                await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})
                silent = 0.0
            await asyncio.sleep(self._keep_alive_seconds - silent)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
