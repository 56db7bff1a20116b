"""OpenTelemetry traces (extra `otel`): a span for each request, and within it queue, prefill and decode of each choice.

Spans are made when the request has ended, from the times that the metrics are made of. So nothing is done for tracing
while an answer is generated, and spans and metrics cannot disagree.
"""

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qtool import __version__
from qtool.errors import MissingPackage, UsageError
from qtool.serve.api import answers
from qtool.serve.api.refusal import Outcome

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

    from qtool.serve.api.call import Call
    from qtool.serve.text.exchange import Choice

_TRACES_PATH = "/v1/traces"
_CLOSE_SECONDS = 2.0
_FAULTS = ("server_error", "shed", "deadline")
_OPERATIONS = {"/v1/completions": "text_completion"}  # the others are conversations
_Value = str | int | tuple[str, ...]


class Tracing:
    """Gives the spans of every request to `processor`."""

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.trace import TracerProvider

        # the interpreter's exit would wait half a minute for a collector that does not answer: `close` waits instead
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("qtool.serve", __version__)

    def record(self, call: "Call", outcome: Outcome, status: int, *, ended_s: float) -> None:
        """The spans of a request that ended at `ended_s` (monotonic clock)."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        offset_ns = time.time_ns() - time.monotonic_ns()
        attributes = _attributes(call, outcome, status)
        root = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {call.backend.model}",
            TraceContextTextMapPropagator().extract(dict(call.request.headers), Context()),
            SpanKind.SERVER,
            attributes,
            start_time=_unix_ns(call.began_s, offset_ns),
        )
        if root.is_recording():
            if outcome in _FAULTS:
                _mark_failed(root)
            within = set_span_in_context(root, Context())
            for choice in call.exchange.choices if call.exchange is not None else ():
                for name, start_s, end_s in phases(choice, call.began_s, ended_s):
                    span = self._tracer.start_span(
                        name,
                        within,
                        attributes={"qtool.choice": choice.index},
                        start_time=_unix_ns(start_s, offset_ns),
                    )
                    span.end(_unix_ns(end_s, offset_ns))
        root.end(_unix_ns(ended_s, offset_ns))

    def close(self, seconds: float = _CLOSE_SECONDS) -> None:
        """Sends what is left, for at most `seconds`; what a collector has not taken by then is lost."""
        closing = threading.Thread(target=self._provider.shutdown, name="qtool-traces", daemon=True)
        closing.start()
        closing.join(seconds)


def open_tracing(endpoint: str) -> Tracing:
    """Traces sent to the OTLP/HTTP collector at `endpoint`, in batches, by a thread of its own.

    Raises UsageError for what is no http(s) URL and for OTEL_ variables that the SDK refuses, MissingPackage where the
    extra is not installed.
    """
    address = traces_address(endpoint)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingPackage("opentelemetry-exporter-otlp-proto-http", "--otel-endpoint", "otel") from error
    try:
        return Tracing(BatchSpanProcessor(OTLPSpanExporter(address)))
    except ValueError as error:  # the SDK reads its variables here
        raise UsageError(f"--otel-endpoint: a variable OTEL_... cannot be used: {error}") from error


def traces_address(endpoint: str) -> str:
    """Where traces go at a collector's `endpoint`: its path and /v1/traces, as the OTLP standard has it."""
    try:
        parts = urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        valid = False
    if not valid or parts.query or parts.fragment:
        raise UsageError(f"--otel-endpoint {endpoint!r} is no URL of a collector; write http://HOST:4318")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_TRACES_PATH) else path + _TRACES_PATH).geturl()


def phases(choice: "Choice", began_s: float, ended_s: float) -> Iterator[tuple[str, float, float]]:
    """Name, start and end of each phase that `choice` reached (seconds, monotonic); the last one that a request which
    failed or was cancelled reached lasts until its end."""
    started_s, first_s, last_s = choice.started_s, choice.first_token_s, choice.last_token_s
    if started_s is None:
        yield "queue", began_s, ended_s
        return
    yield "queue", began_s, started_s
    if first_s is None or last_s is None:  # the engine may have died after a first token: that one is void
        yield "prefill", started_s, ended_s
        return
    yield "prefill", started_s, first_s
    yield "decode", first_s, last_s if choice.finished else ended_s


def _attributes(call: "Call", outcome: Outcome, status: int) -> dict[str, _Value]:
    """What is told of a request: names of OpenTelemetry's conventions for HTTP and GenAI, qtool's own for the rest."""
    route = call.request.url.path
    attributes: dict[str, _Value] = {
        "http.request.method": call.request.method,
        "http.route": route,
        "http.response.status_code": status,
        "url.scheme": call.request.url.scheme,
        "gen_ai.operation.name": _OPERATIONS.get(route, "chat"),
        "gen_ai.provider.name": "qtool",
        "gen_ai.request.model": call.backend.model,
        "qtool.variant": call.backend.variant,
        "qtool.rung": int(call.headers.get("x-qtool-rung", "0")),
        "qtool.request.id": call.id,
        "qtool.outcome": outcome,
    }
    server = call.request.scope.get("server")
    if server is not None:
        attributes |= {"server.address": str(server[0]), "server.port": int(server[1] or 0)}
    if outcome != "success":
        attributes["error.type"] = outcome
    if call.exchange is not None:
        used = answers.usage(call.exchange)
        attributes["gen_ai.usage.input_tokens"] = used["prompt_tokens"]
        attributes["gen_ai.usage.output_tokens"] = used["completion_tokens"]
        attributes["gen_ai.response.finish_reasons"] = tuple(
            choice.transcript.finish or "abort" for choice in call.exchange.choices
        )
    return attributes


def _mark_failed(span: "Span") -> None:
    """An error without a description: the reason of a refusal may quote the request."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR))


def _resource() -> "Resource":
    """Who sends the spans: qtool, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    own = {"service.name": "qtool", "service.version": __version__}
    return Resource.create({**own, **OTELResourceDetector().detect().attributes})


def _unix_ns(moment_s: float, offset_ns: int) -> int:
    return int(moment_s * 1e9) + offset_ns
