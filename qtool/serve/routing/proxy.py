"""An answer that another server gives, passed on as it comes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.responses import Response

from qtool.serve.api.answers import event
from qtool.serve.api.refusal import Disconnected, Refused
from qtool.serve.api.schema import Sampled
from qtool.serve.api.stream import EventStream, disconnected
from qtool.serve.routing.upstream import Flight, Upstream
from qtool.serve.watching.outcome import CLIENT_CLOSED_REQUEST, record

if TYPE_CHECKING:
    from qtool.serve.admission.places import Ticket
    from qtool.serve.api.call import Call

_OK = 200


async def proxied(call: "Call", upstream: Upstream, asked: Sampled) -> Response:
    """The answer of one of `upstream`'s servers. Raises Refused where none can give one."""
    if not upstream.readiness.ready:
        raise Refused(503, f"not ready: {upstream.readiness.state.phase}", outcome="shed", retry_after=2)
    ticket = upstream.places.admit(asked.n * asked.prompt_count, call.owner.key)
    handed_over = False
    try:
        flight = await upstream.send(call.request.url.path, call.document, call.id)
        if asked.stream and flight.response.status_code == _OK:
            handed_over = True
            return _streamed(call, upstream, flight, ticket)
        return await _whole(call, flight)
    finally:
        if not handed_over:
            ticket.release()


async def _whole(call: "Call", flight: Flight) -> Response:

    reading = asyncio.create_task(_read(flight))
    leaving = asyncio.create_task(disconnected(call.request.receive))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            raise Disconnected("the client left before its answer was complete")
        body = reading.result()
    finally:
        for task in (reading, leaving):
            task.cancel()
        await asyncio.gather(reading, leaving, return_exceptions=True)
        await flight.close()
    status = flight.response.status_code
    call.tokens = _used(body)
    record(call, "success" if status < 400 else "client_error" if status < 500 else "server_error", status)
    return Response(body, status, call.headers, media_type=flight.response.headers.get("content-type"))


async def _read(flight: Flight) -> bytes:
    return b"".join([piece async for piece in flight.pieces()])


def _streamed(call: "Call", upstream: Upstream, flight: Flight, ticket: "Ticket") -> EventStream:

    failure: list[Refused] = []
    closing: set[asyncio.Task[None]] = set()

    async def events() -> AsyncIterator[bytes]:
        try:
            async for piece in flight.pieces():
                yield piece
        except Refused as refused:
            failure.append(refused)
            yield event(refused.body())

    def end(complete: bool) -> None:
        ticket.release()
        closing.add(asyncio.get_running_loop().create_task(flight.close()))
        if not complete:
            record(call, "aborted", CLIENT_CLOSED_REQUEST)
        elif failure:
            record(call, failure[0].outcome, _OK, reason=failure[0].message)
        else:
            record(call, "success", _OK)

    return EventStream(
        events(),
        headers=call.headers,
        keep_alive_seconds=upstream.limits.keep_alive_seconds,
        most_seconds=flight.remaining_seconds,
        on_end=end,
    )


def _used(body: bytes) -> int:
    """Tokens that the answer says it used."""
    try:
        used = json.loads(body)["usage"]["total_tokens"]
    except (ValueError, KeyError, TypeError):
        return 0
    return used if isinstance(used, int) else 0
