"""From a request for completions to its answer: admitted, prepared, generated, counted once."""

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from qtool.serve import answers
from qtool.serve.admission import Ticket
from qtool.serve.answers import Envelope
from qtool.serve.body import read_json
from qtool.serve.deployment import Deployment
from qtool.serve.exchange import Exchange
from qtool.serve.prompts import new_tokens, prompts
from qtool.serve.refusal import Disconnected, Outcome, Refused
from qtool.serve.schema import ChatRequest, Sampled, decode
from qtool.serve.stream import EventStream, disconnected

_log = logging.getLogger("qtool.serve")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CLIENT_CLOSED_REQUEST = 499


async def complete(request: Request, deployment: Deployment, kind: type[Sampled]) -> Response:
    """The answer to one request, counted in exactly one class of outcome."""
    began_s = time.monotonic()
    headers = dict(deployment.headers)
    try:
        headers["x-request-id"] = _request_id(request)
        deployment.admission.check()
        asked = decode(kind, await read_json(request, deployment.limits))
        if asked.model != deployment.model:
            raise Refused(404, f"model: {asked.model!r} is not served here; use {deployment.model!r}", param="model")
        return await _admitted(request, deployment, asked, headers, began_s)
    except Refused as refused:
        _record(deployment, headers, refused.outcome, began_s, None)
        return refusal_response(refused, headers)
    except Disconnected:
        _record(deployment, headers, "aborted", began_s, None)
        return Response(status_code=_CLIENT_CLOSED_REQUEST, headers=headers)


def refusal_response(refused: Refused, headers: dict[str, str]) -> JSONResponse:
    """A refusal as the client gets it."""
    if refused.retry_after is not None:
        headers = {**headers, "retry-after": str(refused.retry_after)}
    if refused.status in (408, 413):
        headers = {**headers, "connection": "close"}  # the rest of the body is not worth reading
    return JSONResponse(refused.body(), refused.status, headers)


async def _admitted(
    request: Request, deployment: Deployment, asked: Sampled, headers: dict[str, str], began_s: float
) -> Response:
    """Takes room for all choices, before the first byte is tokenized, and gives it back however the request ends."""
    count = asked.n * asked.prompt_count
    if count > deployment.limits.max_choices:
        raise Refused(400, f"{count} choices in one request; at most {deployment.limits.max_choices}", param="n")
    most = deployment.limits.max_messages
    if isinstance(asked, ChatRequest) and len(asked.messages) > most:
        raise Refused(400, f"{len(asked.messages)} messages in one request; at most {most}", param="messages")
    ticket = deployment.admission.admit(count)
    handed_over = False
    try:
        exchange = await _prepared(deployment, asked, began_s)
        chat = isinstance(asked, ChatRequest)
        prefix = "chatcmpl" if chat else "cmpl"
        envelope = Envelope(
            f"{prefix}-{secrets.token_hex(12)}", int(time.time()), deployment.model, deployment.fingerprint, chat
        )
        exchange.start(deployment.worker)
        if asked.stream:
            handed_over = True
            return _streamed(deployment, exchange, envelope, headers, ticket)
        return await _collected(request, deployment, exchange, envelope, headers)
    finally:
        if not handed_over:
            ticket.release()


async def _prepared(deployment: Deployment, asked: Sampled, began_s: float) -> Exchange:
    vocabulary, capacity = deployment.vocabulary, deployment.capacity
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(deployment.preparing, prompts, asked, vocabulary, capacity)
    try:
        found = await asyncio.wait_for(work, deployment.limits.prepare_seconds)
    except TimeoutError as error:
        raise Refused(400, "the prompt takes too long to tokenize; shorten it", param="prompt") from error
    lengths = [new_tokens(asked, len(ids), capacity) for ids in found]
    return Exchange(
        asked,
        found,
        lengths,
        vocabulary=vocabulary,
        arrived_s=began_s,
        deadline_seconds=deployment.limits.deadline_seconds,
        watch=deployment.metrics,
    )


async def _collected(
    request: Request, deployment: Deployment, exchange: Exchange, envelope: Envelope, headers: dict[str, str]
) -> Response:
    """The whole answer at once; generation stops when the client leaves."""
    answering = asyncio.create_task(_exhaust(exchange))
    leaving = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Disconnected("the client left before its answer was complete")
        answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
        _count_tokens(deployment, exchange)
    _record(deployment, headers, "success", exchange.arrived_s, exchange)
    body = answers.whole(envelope, exchange.asked, exchange.choices, deployment.vocabulary_in_use)
    return JSONResponse(body, headers=headers)


async def _exhaust(exchange: Exchange) -> None:
    async for _ in exchange.pieces():
        pass


def _streamed(
    deployment: Deployment, exchange: Exchange, envelope: Envelope, headers: dict[str, str], ticket: Ticket
) -> EventStream:
    stream = _Stream(deployment, exchange, envelope, headers, ticket)
    return EventStream(
        stream.events(),
        headers=headers,
        keep_alive_seconds=deployment.limits.keep_alive_seconds,
        most_seconds=exchange.remaining_seconds,
        on_end=stream.end,
    )


class _Stream:
    """A streamed answer: its events, and what is counted when it ends."""

    def __init__(
        self, deployment: Deployment, exchange: Exchange, envelope: Envelope, headers: dict[str, str], ticket: Ticket
    ) -> None:
        self._deployment = deployment
        self._exchange = exchange
        self._envelope = envelope
        self._headers = headers
        self._ticket = ticket
        self._outcome: Outcome = "success"

    async def events(self) -> AsyncIterator[bytes]:
        """Server-sent events; a failure on the way is an error event, and then no [DONE]."""
        exchange, envelope = self._exchange, self._envelope
        vocabulary = self._deployment.vocabulary_in_use
        if envelope.chat:
            for choice in exchange.choices:
                yield answers.event(answers.opening(envelope, choice))
        try:
            async for choice, piece in exchange.pieces():
                yield answers.event(answers.chunk(envelope, exchange.asked, choice, piece, vocabulary))
        except Refused as refused:
            self._outcome = refused.outcome
            yield answers.event(refused.body())
            return
        if exchange.asked.wants_usage:
            last = {**envelope.wrap([], chunk=True), "usage": answers.usage(exchange.asked, exchange.choices)}
            yield answers.event(last)
        yield b"data: [DONE]\n\n"

    def end(self, complete: bool) -> None:
        """Counts the request and gives its room back."""
        self._exchange.cancel()
        self._ticket.release()
        _count_tokens(self._deployment, self._exchange)
        outcome = self._outcome if complete else "aborted"
        _record(self._deployment, self._headers, outcome, self._exchange.arrived_s, self._exchange)


def _count_tokens(deployment: Deployment, exchange: Exchange) -> None:
    used = answers.usage(exchange.asked, exchange.choices)
    deployment.metrics.tokens(used["prompt_tokens"], used["completion_tokens"])
    for choice in exchange.choices:
        deployment.metrics.finished(choice.transcript.finish or "abort")


def _record(
    deployment: Deployment, headers: dict[str, str], outcome: Outcome, began_s: float, exchange: Exchange | None
) -> None:
    """One count and one log line a request; nothing of what was said in it."""
    seconds = time.monotonic() - began_s
    deployment.metrics.ended(outcome)
    line: dict[str, object] = {"request": headers.get("x-request-id", ""), "outcome": outcome}
    if exchange is not None:
        line |= answers.usage(exchange.asked, exchange.choices)
        if outcome == "success":
            deployment.metrics.answered(seconds, len(exchange.choices))
    line |= {"variant": deployment.variant, "seconds": round(seconds, 4)}
    _log.info(json.dumps(line))


def _request_id(request: Request) -> str:
    """The client's own id for logs and headers, never the engine's key; a new one where it gave none."""
    given = request.headers.get("x-request-id")
    if given is None:
        return secrets.token_hex(8)
    if not _REQUEST_ID.fullmatch(given):
        raise Refused(400, "x-request-id: use up to 128 letters, digits and . _ : -")
    return given
