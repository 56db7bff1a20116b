"""From a request for completions to its answer: read, admitted, prepared, generated, counted once."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from qtool.serve.admission.keys import Key
from qtool.serve.admission.places import Ticket
from qtool.serve.api import answers
from qtool.serve.api.answers import CompletionShape, Envelope, Shape
from qtool.serve.api.body import read_document
from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.exchange import Exchange, Terms
from qtool.serve.api.refusal import Disconnected, Outcome, Refused
from qtool.serve.api.schema import Sampled
from qtool.serve.api.stream import EventStream, disconnected
from qtool.serve.deployment import Deployment
from qtool.serve.service import Service
from qtool.serve.supervision.jobs import Owner
from qtool.serve.text.prompts import new_tokens, prepare

_log = logging.getLogger("qtool.requests")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CLIENT_CLOSED_REQUEST = 499


@dataclass(slots=True, eq=False)
class Call:
    """One HTTP request for completions: the headers of its answer, when it arrived, who sent it."""

    request: Request
    headers: dict[str, str]
    began_s: float
    owner: Owner = field(default_factory=Owner)
    tokens: int = 0

    @property
    def id(self) -> str:
        """The request's id in logs and headers."""
        return self.headers.get("x-request-id", "")


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
    deployment = service.deployment
    call = Call(request, dict(deployment.headers), time.monotonic())
    try:
        call.headers["x-request-id"] = request_id(request)
        deployment.places.check()
        asked = await read_document(request, service.limits, service.reading, decode=read, executor=service.decoding)
        if asked.model != service.model:
            raise Refused(404, f"model: {asked.model!r} is not served here; use {service.model!r}", param="model")
        call.owner = Owner(owner_key(request), asked.user)
        return await _admitted(call, deployment, asked, make_shape)
    except Refused as refused:
        record(call, deployment, refused.outcome, refused.status, reason=refused.message)
        return refusal_response(refused, call.headers)
    except Disconnected as left:
        record(call, deployment, "aborted", _CLIENT_CLOSED_REQUEST, reason=str(left))
        return Response(status_code=_CLIENT_CLOSED_REQUEST, headers=call.headers)


def refusal_response(refused: Refused, headers: dict[str, str]) -> JSONResponse:
    """A refusal as the client gets it."""
    if refused.retry_after is not None:
        headers = {**headers, "retry-after": str(refused.retry_after)}
    if refused.status in (408, 413):
        headers = {**headers, "connection": "close"}  # the rest of the body is not worth reading
    return JSONResponse(refused.body(), refused.status, headers)


def request_id(request: Request) -> str:
    """The client's own id for logs and headers, never the engine's key; a new one where it gave none."""
    given = request.headers.get("x-request-id")
    if given is None:
        return secrets.token_hex(8)
    if not _REQUEST_ID.fullmatch(given):
        raise Refused(400, "x-request-id: use up to 128 letters, digits and . _ : -")
    return given


def owner_key(request: Request) -> str:
    """Whose turn it is in the fair queue: the API key's name, or the address where there are no keys."""
    key = key_of(request)
    return key.name if key is not None else (request.client.host if request.client else "")


def key_of(request: Request) -> Key | None:
    """The API key that came with the request, where keys are required."""
    key: Key | None = request.scope.get("state", {}).get("key")
    return key


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
        exchange = await _prepared(call, deployment, asked)
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
        count_tokens(call, deployment, exchange)
    record(call, deployment, "success", 200, exchange=exchange)
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
        count_tokens(self.call, self.deployment, self.exchange)
        self._ticket.release()
        refused = self._refused
        if not complete:
            record(self.call, self.deployment, "aborted", _CLIENT_CLOSED_REQUEST, exchange=self.exchange)
        elif refused is None:
            record(self.call, self.deployment, "success", 200, exchange=self.exchange)
        else:
            record(self.call, self.deployment, refused.outcome, 200, reason=refused.message, exchange=self.exchange)


def count_tokens(call: Call, deployment: Deployment, exchange: Exchange) -> None:
    """Counts what was generated, complete or not."""
    used = answers.usage(exchange)
    call.tokens = used["total_tokens"]
    deployment.metrics.tokens(used["prompt_tokens"], used["completion_tokens"])
    for choice in exchange.choices:
        deployment.metrics.finished(choice.transcript.finish or "abort")


def record(
    call: Call,
    deployment: Deployment,
    outcome: Outcome,
    status: int,
    *,
    reason: str = "",
    exchange: Exchange | None = None,
) -> None:
    """One count and one log line per request; nothing of what was said in it."""
    seconds = time.monotonic() - call.began_s
    deployment.metrics.ended(outcome)
    if outcome in ("success", "deadline", "server_error"):
        deployment.metrics.answered(seconds, len(exchange.choices) if exchange else 1)
    line: dict[str, object] = {"request": call.id, "route": call.request.url.path, "status": status}
    line |= {"outcome": outcome, "seconds": round(seconds, 4), "variant": deployment.variant}
    if reason:
        line["reason"] = reason if outcome != "client_error" else reason.partition(":")[0][:80]
    if exchange is not None:
        line |= answers.usage(exchange)
        if exchange.cut_short:
            line["cut_short"] = True
    _log.info("request", extra={"fields": line})
