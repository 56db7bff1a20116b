"""How one request ended: one count and one line of the log."""

import logging
import time
from typing import TYPE_CHECKING

from starlette.requests import Request

from qtool.serve.admission.keys import Key
from qtool.serve.api import answers
from qtool.serve.api.refusal import Outcome
from qtool.serve.watching.watch import judge

if TYPE_CHECKING:
    from qtool.serve.api.call import Call
    from qtool.serve.text.exchange import Exchange

CLIENT_CLOSED_REQUEST = 499

_log = logging.getLogger("qtool.requests")


def key_of(request: Request) -> Key | None:
    """The API key that came with the request, where keys are required."""
    key: Key | None = request.scope.get("state", {}).get("key")
    return key


def record(
    call: "Call", outcome: Outcome, status: int, *, reason: str = "", exchange: "Exchange | None" = None
) -> None:
    """One count and one log line per request; nothing of what was said in it."""
    seconds = time.monotonic() - call.began_s
    metrics = call.backend.metrics
    metrics.ended(outcome)
    if outcome in ("success", "deadline", "server_error"):
        metrics.answered(seconds, len(exchange.choices) if exchange else 1)
    line: dict[str, object] = {"request": call.id, "route": call.request.url.path, "status": status}
    line |= {"outcome": outcome, "seconds": round(seconds, 4), "variant": call.backend.variant}
    key = key_of(call.request)
    if key is not None:
        line["key"] = key.name
        metrics.ended_for(key.key_class, outcome, call.tokens)
    if reason:
        line["reason"] = reason if outcome != "client_error" else reason.partition(":")[0][:80]
    if exchange is not None:
        line |= answers.usage(exchange)
        if exchange.cut_short:
            line["cut_short"] = True
    _log.info("request", extra={"fields": line})
    if call.tracing is not None:
        call.tracing.record(call, outcome, status, ended_s=call.began_s + seconds)
    judge(call, outcome, seconds, exchange)
