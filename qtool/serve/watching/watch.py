"""What is learned from the end of a request: its breaker, the canary, its quality, and perhaps a sample."""

from typing import TYPE_CHECKING

from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.refusal import Outcome
from qtool.serve.deployment import Deployment
from qtool.serve.watching.output_checks import faults
from qtool.serve.watching.second_look import Served

if TYPE_CHECKING:
    from qtool.serve.api.call import Call
    from qtool.serve.text.exchange import Exchange


def judge(call: "Call", outcome: Outcome, seconds: float, exchange: "Exchange | None") -> None:
    """Tells everybody who learns from outcomes; of a rung that passed the request on, its breaker alone."""
    breaker = call.backend.breaker
    if outcome in ("shed", "aborted", "client_error"):
        breaker.release()
        return
    quality = _quality(call, outcome, exchange)
    breaker.record(good=outcome == "success", seconds=seconds, quality=quality)
    service = call.service
    if service is None:
        return
    canary, candidate = service.router.canary, service.router.candidate
    if canary is not None and candidate is not None:
        canary.observe(quality, candidate=call.backend is candidate)
    if exchange is not None and outcome == "success":
        _look_twice(call, exchange)
    if service.samples is not None and exchange is not None and service.samples.chooses(call.id):
        service.samples.keep(_sample(call, outcome, seconds, exchange))


def _look_twice(call: "Call", exchange: "Exchange") -> None:
    """Hands a sampled answer to those who read it again; what they find goes to the canary and the breaker."""
    service, backend = call.service, call.backend
    if service is None or service.second_look is None or not isinstance(backend, Deployment):
        return
    drift, shadow = service.second_look.wants(call.id, backend)
    if not drift and not shadow:
        return
    router = service.router

    def observe(score: float) -> None:
        backend.breaker.record_shadow(score)
        if router.canary is not None and router.candidate is not None:
            router.canary.observe_shadow(score, candidate=backend is router.candidate)

    for choice in exchange.choices:
        ids = tuple(token.id for token in choice.transcript.tokens)
        service.second_look.take(Served(call.id, choice.prompt, ids, backend, shadow, observe))


def _quality(call: "Call", outcome: Outcome, exchange: "Exchange | None") -> float:
    """1 for an answer without a sign of damage, 0 for a failure or a damaged one; the mean over several choices."""
    if outcome != "success":
        return 0.0
    if exchange is None or not exchange.choices:
        return 1.0
    form = exchange.asked.response_format if isinstance(exchange.asked, ChatRequest) else None
    wanted = form is not None and form.type in ("json_object", "json_schema")
    damaged = 0
    for choice in exchange.choices:
        found = faults(
            choice.transcript.text, choice.transcript.finish, json_wanted=wanted, calls=bool(choice.splitter.calls)
        )
        for fault in found:
            call.backend.metrics.damaged(fault)
        damaged += bool(found)
    return 1.0 - damaged / len(exchange.choices)


def _sample(call: "Call", outcome: Outcome, seconds: float, exchange: "Exchange") -> dict[str, object]:
    return {
        "request": call.id,
        "variant": call.backend.variant,
        "outcome": outcome,
        "seconds": round(seconds, 4),
        "body": call.document,
        "metadata": exchange.asked.metadata,
        "choices": [
            {"text": choice.transcript.text, "finish_reason": choice.transcript.finish} for choice in exchange.choices
        ],
    }
