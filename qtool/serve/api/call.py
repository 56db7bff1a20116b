"""One HTTP request for completions, from its arrival to the one line and the one count that it ends in."""

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse

from qtool.serve.api import answers
from qtool.serve.api.refusal import Refused
from qtool.serve.routing.router import Backend
from qtool.serve.service import Service
from qtool.serve.supervision.jobs import Owner
from qtool.serve.text.exchange import Exchange
from qtool.serve.watching.outcome import key_of

if TYPE_CHECKING:
    from qtool.serve.watching.tracing import Tracing

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True, eq=False)
class Call:
    """One HTTP request for completions: the headers of its answer, when it arrived, who sent it."""

    request: Request
    headers: dict[str, str]
    began_s: float
    backend: Backend
    owner: Owner = field(default_factory=Owner)
    tokens: int = 0
    document: dict[str, object] = field(default_factory=dict)
    service: Service | None = None
    tracing: "Tracing | None" = None
    exchange: Exchange | None = None  # of the rung that was asked last, once its prompt is tokenized
    judged: bool = False  # whether its breaker and canary know the outcome already

    @property
    def id(self) -> str:
        """The request's id in logs and headers."""
        return self.headers.get("x-request-id", "")


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


def count_tokens(call: Call, exchange: Exchange) -> None:
    """Counts what was generated, complete or not."""
    used = answers.usage(exchange)
    call.tokens = used["total_tokens"]
    call.backend.metrics.tokens(used["prompt_tokens"], used["completion_tokens"])
    for choice in exchange.choices:
        transcript = choice.transcript
        call.backend.metrics.phases(choice.started_s, choice.first_token_s, choice.last_token_s, transcript.generated)
        call.backend.metrics.finished(choice.transcript.finish or "abort")
