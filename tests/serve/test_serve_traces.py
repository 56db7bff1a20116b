"""OpenTelemetry traces: which spans a request leaves, what is in them, and what a collector that is away costs."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_engine import FakeEngine
from live_server import Running, running_server, wait_for

from qtool.errors import MissingPackage, UsageError
from qtool.serve.limits import Limits
from qtool.serve.options import Serving, Watching
from qtool.serve.stage import serve
from qtool.serve.watching.tracing import open_tracing, phases, traces_address

_TRACE, _PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_SECRET = "swordfish"


@contextlib.contextmanager
def traced(engine: FakeEngine, limits: Limits | None = None) -> Iterator[tuple[Running, object]]:
    """A server whose spans land in a list."""
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    from qtool.serve.watching.tracing import Tracing

    with running_server(engine, limits=limits) as server:
        server.service.tracing = Tracing(export.SimpleSpanProcessor(memory))
        yield server, memory


def spans(memory, count: int) -> list:
    """The spans of one request, the outermost first, the others in order of time."""
    wait_for(lambda: len(memory.get_finished_spans()) >= count)
    found = list(memory.get_finished_spans())
    assert len(found) == count, [span.name for span in found]
    return [found[-1], *sorted(found[:-1], key=lambda span: (span.attributes["qtool.choice"], span.start_time))]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_a_span_with_its_phases_within(stream: bool):
    with traced(FakeEngine(step_seconds=0.02)) as (server, memory):
        before_ns = time.time_ns()
        answer = server.complete(prompt="hello", max_tokens=5, stream=stream)
        after_ns = time.time_ns()
        assert answer.status_code == 200
        root, queue, prefill, decode = spans(memory, 4)
    assert [span.name for span in (root, queue, prefill, decode)] == ["text_completion m", "queue", "prefill", "decode"]
    assert root.parent is None
    assert {span.parent.span_id for span in (queue, prefill, decode)} == {root.context.span_id}
    assert {span.context.trace_id for span in (queue, prefill, decode)} == {root.context.trace_id}
    assert root.start_time == queue.start_time
    assert queue.end_time == prefill.start_time
    assert prefill.end_time == decode.start_time
    assert decode.end_time <= root.end_time
    slack_ns = 5_000_000  # wall clock and monotonic clock are read one after the other
    assert before_ns - slack_ns <= root.start_time < root.end_time <= after_ns + slack_ns
    assert decode.end_time - decode.start_time >= 4 * 0.02e9 * 0.9  # five tokens are four steps apart
    phases_ns = sum(span.end_time - span.start_time for span in (queue, prefill, decode))
    assert 0 <= root.end_time - root.start_time - phases_ns < 200_000_000  # only the end of the request is in no phase


def test_the_span_tells_what_was_asked_and_how_it_ended():
    with traced(FakeEngine()) as (server, memory):
        answer = server.complete(prompt="hello", max_tokens=5)
        root = spans(memory, 4)[0]
    told = dict(root.attributes)
    usage = answer.json()["usage"]
    assert told["gen_ai.request.model"] == "m"
    assert told["gen_ai.operation.name"] == "text_completion"
    assert told["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == usage["completion_tokens"] == 5
    assert told["gen_ai.response.finish_reasons"] == ("length",)
    assert told["http.route"] == "/v1/completions"
    assert told["http.response.status_code"] == 200
    assert (told["qtool.variant"], told["qtool.rung"], told["qtool.outcome"]) == ("w8a16", 0, "success")
    assert told["qtool.request.id"] == answer.headers["x-request-id"]
    assert told["server.port"] == server.port
    assert root.kind.name == "SERVER"
    assert root.status.status_code.name == "UNSET"


def test_every_choice_has_its_phases():
    with traced(FakeEngine()) as (server, memory):
        assert server.complete(n=2, temperature=1, max_tokens=3).status_code == 200
        root, *children = spans(memory, 7)
    assert [span.name for span in children] == ["queue", "prefill", "decode"] * 2
    assert root.attributes["gen_ai.response.finish_reasons"] == ("length", "length")


def test_the_clients_trace_is_the_parent():
    with traced(FakeEngine()) as (server, memory):
        server.client.headers["traceparent"] = f"00-{_TRACE}-{_PARENT}-01"
        server.complete(max_tokens=2)
        root = spans(memory, 4)[0]
        assert f"{root.context.trace_id:032x}" == _TRACE
        assert f"{root.parent.span_id:016x}" == _PARENT
        memory.clear()
        server.client.headers["traceparent"] = "no trace at all"
        server.complete(max_tokens=2)
        assert spans(memory, 4)[0].parent is None
        memory.clear()
        server.client.headers["traceparent"] = f"00-{_TRACE}-{_PARENT}-00"  # not sampled
        server.complete(max_tokens=2)
        server.wait_idle()
        assert memory.get_finished_spans() == ()


def test_nothing_that_was_said_is_in_a_span():
    with traced(FakeEngine()) as (server, memory):
        assert server.chat(f"say ={_SECRET}", user=_SECRET, metadata={"k": _SECRET}).status_code == 200
        assert server.complete(prompt=_SECRET, temperature=_SECRET).status_code == 400
        assert server.complete(model=_SECRET).status_code == 404
        assert server.complete(prompt=_SECRET * 100).status_code == 400
        wait_for(lambda: sum(span.parent is None for span in memory.get_finished_spans()) == 4)
        found = [span.to_json() for span in memory.get_finished_spans()]
    assert all(_SECRET not in text and "say" not in text for text in found)


def test_a_refused_request_has_the_phases_it_reached():
    engine = FakeEngine(slots=1)
    with traced(engine, Limits(max_running=1, queue_seconds=60.0, deadline_seconds=0.5)) as (server, memory):
        engine.hold.clear()
        assert server.complete(max_tokens=5).status_code == 504
        engine.hold.set()
        wait_for(lambda: any(span.parent is None for span in memory.get_finished_spans()))
        root = next(span for span in memory.get_finished_spans() if span.parent is None)
        children = [span for span in memory.get_finished_spans() if span.parent is not None]
    assert root.status.status_code.name == "ERROR"
    assert root.status.description is None
    assert root.attributes["error.type"] == root.attributes["qtool.outcome"] == "deadline"
    assert root.attributes["http.response.status_code"] == 504
    assert children
    assert max(span.end_time for span in children) == root.end_time


def test_phases_of_choices_that_did_not_end():
    def reached(started: float | None, first: float | None, last: float | None, finished: bool) -> list[tuple]:
        choice = SimpleNamespace(started_s=started, first_token_s=first, last_token_s=last, finished=finished)
        return list(phases(choice, 0.0, 9.0))  # type: ignore[arg-type]

    assert reached(None, None, None, False) == [("queue", 0.0, 9.0)]
    assert reached(1.0, None, None, False) == [("queue", 0.0, 1.0), ("prefill", 1.0, 9.0)]
    assert reached(1.0, 2.0, None, False) == [("queue", 0.0, 1.0), ("prefill", 1.0, 9.0)]  # its engine died
    assert reached(1.0, 2.0, 5.0, False)[-1] == ("decode", 2.0, 9.0)
    assert reached(1.0, 2.0, 5.0, True)[-1] == ("decode", 2.0, 5.0)


class _Collector(HTTPServer):
    """Takes everything that is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.posts: list[tuple[str, bytes]] = []


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Collector)
        self.server.posts.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_collector_gets_the_spans(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    monkeypatch.setenv("OTEL_SERVICE_NAME", "chat")
    with _Collector() as collector, running_server(FakeEngine()) as server:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        server.service.tracing = open_tracing(f"http://127.0.0.1:{collector.server_port}")
        server.complete(max_tokens=2)
        server.wait_idle()
        server.service.tracing.close(10.0)
        collector.shutdown()
    (path, body), *more = collector.posts
    assert (path, more) == ("/v1/traces", [])
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {each.key: each.value.string_value for each in resource.resource.attributes}["service.name"] == "chat"
    assert sorted(span.name for span in resource.scope_spans[0].spans) == [
        "decode", "prefill", "queue", "text_completion m"
    ]  # fmt: skip


def test_a_dead_collector_delays_nobody(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    import socket

    caplog.set_level(logging.CRITICAL)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")  # so that its thread does not outlive the test for long
    with socket.socket() as silent, running_server(FakeEngine()) as server:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections and never answers
        tracing = server.service.tracing = open_tracing(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for _ in range(200):  # 800 spans: more than one batch, so that the exporter is at it while requests go on
            assert server.complete(max_tokens=2).status_code == 200
        server.wait_idle()
        began_s = time.monotonic()
        tracing.close(0.5)
        assert time.monotonic() - began_s < 2.0
        assert server.counted("success") == 200


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "ftp://host", "http://", "http://host:no", "http://[", "http://h/?a=b", ""]
)
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str):
    with pytest.raises(UsageError, match=r"--otel-endpoint .* is no URL of a collector; write http://HOST:4318"):
        open_tracing(endpoint)


def test_a_variable_that_the_sdk_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")  # smaller than a batch
    with pytest.raises(UsageError, match=r"a variable OTEL_... cannot be used: "):
        open_tracing("http://localhost:4318")


def test_the_endpoint_gets_the_path_of_traces():
    assert traces_address("http://host:4318") == "http://host:4318/v1/traces"
    assert traces_address("https://host/otlp/") == "https://host/otlp/v1/traces"
    assert traces_address("https://host/otlp/v1/traces") == "https://host/otlp/v1/traces"


def test_a_missing_package_is_named_before_anything_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    watching = Watching(otel_endpoint="http://localhost:4318")
    with pytest.raises(MissingPackage, match=r"pip install 'qtool\[otel\]'"):
        serve(tmp_path / "no-such-bundle", Serving(watching=watching))


def test_without_the_option_neither_sdk_nor_exporter_is_imported():
    program = (
        "import sys, json; import qtool.serve.app, qtool.serve.stage, qtool.serve.watching.tracing;"
        "print(json.dumps([name for name in sys.modules if name.startswith('opentelemetry.')]))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # FastAPI may bring the interface, which does nothing by itself
    assert [name for name in json.loads(found.stdout) if name.split(".")[1] in ("sdk", "exporter")] == []
