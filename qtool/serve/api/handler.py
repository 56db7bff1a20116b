"""From a request for completions to its answer: read, admitted, prepared, generated, counted once."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from qtool.serve.admission.places import Ticket
from qtool.serve.api.answers import CompletionShape, Envelope, Shape
from qtool.serve.api.body import read_document
from qtool.serve.api.call import Call, count_tokens, owner_key, refusal_response, request_id
from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.refusal import Disconnected, Refused
from qtool.serve.api.schema import Sampled
from qtool.serve.api.stream import EventStream, disconnected
from qtool.serve.deployment import Deployment
from qtool.serve.routing.proxy import proxied
from qtool.serve.routing.upstream import Upstream
from qtool.serve.service import Service
from qtool.serve.supervision.jobs import Owner
from qtool.serve.text.exchange import Exchange, Terms
from qtool.serve.text.prompts import new_tokens, prepare
from qtool.serve.watching.outcome import CLIENT_CLOSED_REQUEST, key_of, record
from qtool.serve.watching.watch import judge


def completion_shape(asked: Sampled, deployment: Deployment) -> Shape:
    """How completions are written."""
    prefix = "chatcmpl" if isinstance(asked, ChatRequest) else "cmpl"
    id_ = f"{prefix}-{secrets.token_hex(12)}"
    envelope = Envelope(id_, int(time.time()), asked.model, deployment.fingerprint)
    return CompletionShape(envelope, asked, deployment.vocabulary_in_use)


MakeShape = Callable[[Sampled, Deployment], Shape]


async def complete(
    request: Request,
    service: Service,
    read: Callable[[dict[str, object]], Sampled],
    make_shape: MakeShape = completion_shape,
) -> Response:
    """The answer to one request, counted in exactly one class of outcome. `read` makes the request of its JSON."""
    call = Call(request, dict(service.first.headers), time.monotonic(), service.first, tracing=service.tracing)
    try:
        call.headers["x-request-id"] = request_id(request)
        service.check_places()
        call.document, asked = await read_document(
            request,
            service.limits,
            service.reading,
            decode=lambda document: (document, read(document)),
            executor=service.decoding,
        )
        if asked.model != service.model:
            raise Refused(404, f"model: {asked.model!r} is not served here; use {service.model!r}", param="model")
        call.owner = Owner(owner_key(request), asked.user)
        return await _by_some_rung(call, service, asked, make_shape)
    except Refused as refused:
        record(call, refused.outcome, refused.status, reason=refused.message)
        return refusal_response(refused, call.headers)
    except Disconnected as left:
        record(call, "aborted", CLIENT_CLOSED_REQUEST, reason=str(left))
        return Response(status_code=CLIENT_CLOSED_REQUEST, headers=call.headers)


async def _by_some_rung(call: Call, service: Service, asked: Sampled, make_shape: MakeShape) -> Response:
    """The answer of the first rung that can give one. Raises Refused as the last one that was asked did."""
    key = key_of(call.request)
    identity = asked.user or (key.name if key else "") or call.id
    call.service = service
    last = Refused(503, "no variant can answer now", outcome="shed", retry_after=2)
    for rung in service.router.rungs(identity):
        call.backend = rung.backend
        call.exchange = None
        call.headers |= {**rung.backend.headers, "x-qtool-rung": str(rung.place)}
        try:
            if isinstance(rung.backend, Upstream):
                return await proxied(call, rung.backend, asked)
            return await _admitted(call, rung.backend, asked, make_shape)
        except Refused as refused:
            if refused.outcome not in ("shed", "server_error") or refused.status == 429:
                raise
            last = refused
            judge(call, refused.outcome, time.monotonic() - call.began_s, None)
            if call.backend.places.draining:
                raise
    raise last


async def _admitted(call: Call, deployment: Deployment, asked: Sampled, make_shape: MakeShape) -> Response:
    """Takes room for all choices, before the first byte is tokenized, and gives it back however the request ends."""
    count = asked.n * asked.prompt_count
    if count > deployment.limits.max_choices:
        raise Refused(400, f"n: {count} choices in one request; at most {deployment.limits.max_choices}", param="n")
    key = call.owner.key
    ticket = deployment.places.admit(count, key, ahead=deployment.supervisor.ahead_of(key))
    api_key = key_of(call.request)
    if api_key is not None:
        try:
            api_key.enter()
        except Refused:
            ticket.release()
            raise
        ticket.on_release(lambda: api_key.leave(call.tokens))
    handed_over = False
    try:
        exchange = call.exchange = await _prepared(call, deployment, asked)
        shape = make_shape(asked, deployment)
        deployment.begin(exchange)
        if asked.stream:
            handed_over = True
            return _streamed(_Stream(call, deployment, exchange, shape, ticket))
        return await _collected(call, deployment, exchange, shape)
    finally:
        if not handed_over:
            ticket.release()


async def _prepared(call: Call, deployment: Deployment, asked: Sampled) -> Exchange:
    vocabulary, capacity, limits = deployment.vocabulary, deployment.capacity, deployment.limits
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(deployment.preparing, prepare, asked, vocabulary, capacity)
    try:
        prepared = await asyncio.wait_for(work, limits.prepare_seconds)
    except TimeoutError as error:
        raise Refused(400, "the prompt takes too long to tokenize; shorten it", param="prompt") from error
    lengths = [new_tokens(asked, len(ids), capacity, limits.default_tokens) for ids in prepared.prompts]
    terms = Terms(call.began_s, limits.deadline_seconds, limits.queue_seconds, call.owner)
    return Exchange(asked, prepared, lengths, vocabulary=vocabulary, terms=terms, watch=deployment.metrics)


async def _collected(call: Call, deployment: Deployment, exchange: Exchange, shape: Shape) -> Response:
    """The whole answer at once; generation stops when the client leaves."""
    answering = asyncio.create_task(_exhaust(exchange))
    leaving = asyncio.create_task(disconnected(call.request.receive))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Disconnected("the client left before its answer was complete")
        answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
        deployment.end(exchange)
        count_tokens(call, exchange)
    record(call, "success", 200, exchange=exchange)
    return JSONResponse(shape.whole(exchange), headers=call.headers)


async def _exhaust(exchange: Exchange) -> None:
    async for _ in exchange.pieces():
        pass


def _streamed(stream: "_Stream") -> EventStream:
    return EventStream(
        stream.events(),
        headers=stream.call.headers,
        keep_alive_seconds=stream.deployment.limits.keep_alive_seconds,
        most_seconds=stream.exchange.remaining_seconds,
        on_end=stream.end,
    )


class _Stream:
    """A streamed answer: its events, and what is counted when it ends."""

    def __init__(self, call: Call, deployment: Deployment, exchange: Exchange, shape: Shape, ticket: Ticket) -> None:
        self.call = call
        self.deployment = deployment
        self.exchange = exchange
        self._shape = shape
        self._ticket = ticket
        self._refused: Refused | None = None

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events, those of a step together; a failure on the way is an error event, and then no [DONE]."""
        exchange, shape = self.exchange, self._shape
        gathered = bytearray(shape.begin(exchange))
        try:
            async for choice, piece in exchange.pieces():
                gathered += shape.piece(choice, piece)
                if gathered and exchange.idle:
                    yield bytes(gathered)
                    gathered.clear()
        except Refused as refused:
            self._refused = refused
            yield bytes(gathered) + shape.failure(refused)
            return
        yield bytes(gathered) + shape.end(exchange)

    def end(self, complete: bool) -> None:
        """Counts the request and gives its room back."""
        self.exchange.cancel()
        self.deployment.end(self.exchange)
        count_tokens(self.call, self.exchange)
        self._ticket.release()
        refused = self._refused
        if not complete:
            record(self.call, "aborted", CLIENT_CLOSED_REQUEST, exchange=self.exchange)
        elif refused is None:
            record(self.call, "success", 200, exchange=self.exchange)
        else:
            record(self.call, refused.outcome, 200, reason=refused.message, exchange=self.exchange)
