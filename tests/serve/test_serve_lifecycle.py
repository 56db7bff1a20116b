"""Readiness, overload, deadlines, clients that leave, shutting down, an engine that dies."""

import concurrent.futures
import json
import socket
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from fake_engine import FakeEngine
from live_server import Running, running_server, threaded, wait_for

from qtool.errors import MismatchError
from qtool.serve.limits import Limits

BODY = {"model": "m", "prompt": "x", "max_tokens": 100, "temperature": 0}


def test_not_ready_until_warm_with_a_reason_and_healthy_all_the_while():
    gate = threading.Event()
    engine = FakeEngine()

    def prepare(phase: Callable[[str], None]) -> None:
        phase("reproducing golden prompts")
        gate.wait(10)

    with running_server(engine, make_host=threaded(lambda: engine, prepare), warm=False) as server:
        wait_for(lambda: server.deployment.readiness.state.phase == "reproducing golden prompts")
        answer = server.client.get("/ready")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "phase": "reproducing golden prompts"}
        assert server.client.get("/health").status_code == 200
        early = server.complete()
        assert early.status_code == 503
        assert int(early.headers["retry-after"]) >= 1
        gate.set()
        wait_for(lambda: server.client.get("/ready").status_code == 200)
        assert server.complete().status_code == 200


def test_a_failed_gate_never_becomes_ready():
    def refuse(phase: object) -> None:
        raise MismatchError("golden prompt 0 is not reproduced")

    engine = FakeEngine()
    with running_server(engine, make_host=threaded(lambda: engine, refuse), warm=False) as server:
        wait_for(lambda: server.deployment.readiness.state.phase == "failed")
        answer = server.client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["reason"] == "golden prompt 0 is not reproduced"
        assert server.client.get("/health").status_code == 503
        assert server.complete().status_code == 503
        assert engine.closed


def test_overload_is_refused_at_once_with_retry_after_and_not_counted_as_an_error():
    engine = FakeEngine(slots=2)
    with running_server(engine, limits=Limits(max_running=2, max_queue=3, queue_seconds=60.0)) as server:
        engine.hold.clear()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(server.complete) for _ in range(12)]
            done, _ = concurrent.futures.wait(asked, timeout=3, return_when=concurrent.futures.FIRST_COMPLETED)
            wait_for(lambda: sum(answer.done() for answer in asked) == 7)
            supervisor = server.deployment.supervisor
            wait_for(lambda: supervisor.waiting + supervisor.running == 5)
            assert server.metric("qtool_requests_waiting") == supervisor.waiting == 3
            assert server.client.get("/health").status_code == 200
            assert server.client.get("/ready").status_code == 200
            for answer in done:
                assert answer.result().status_code == 503
                assert int(answer.result().headers["retry-after"]) >= 1
                assert answer.result().json()["error"]["type"] == "overloaded_error"
            engine.hold.set()
            assert sorted(answer.result().status_code for answer in asked) == [200] * 5 + [503] * 7
        assert server.counted("shed") == 7
        assert server.counted("success") == 5
        assert server.counted("server_error") == 0
        server.wait_idle()


def test_too_many_choices_for_the_room_left_are_refused_whole():
    engine = FakeEngine(slots=2)
    with running_server(engine, limits=Limits(max_running=2, max_queue=1)) as server:
        assert server.complete(n=4, temperature=1).status_code == 503
        assert server.complete(n=3, temperature=1).status_code == 200
        server.wait_idle()


@pytest.mark.parametrize("queued", [False, True])
def test_deadline_is_504_never_a_short_answer(queued: bool):
    engine = FakeEngine(slots=1, step_seconds=0.02)
    with running_server(
        engine, limits=Limits(max_running=1, max_queue=8, queue_seconds=60.0, deadline_seconds=0.4)
    ) as server:
        if queued:
            engine.hold.clear()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: server.complete(max_tokens=100), range(3)))
        engine.hold.set()
        for answer in answers:
            assert answer.status_code == 504
            assert answer.json()["error"]["type"] == "timeout_error"
        assert server.counted("deadline") == 3
        server.wait_idle()


def test_deadline_inside_a_stream_is_an_error_event_without_done():
    engine = FakeEngine(step_seconds=0.02)
    with running_server(engine, limits=Limits(deadline_seconds=0.3)) as server:
        text = server.complete(max_tokens=100, stream=True).text
        last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["error"]["status"] == 504
        assert "[DONE]" not in text
        wait_for(lambda: server.counted("deadline") == 1)
        server.wait_idle()


def head(length: int) -> bytes:
    """The head of a completion request with a body of `length` bytes."""
    lines = ("POST /v1/completions HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


def leave_after(server: Running, body: dict[str, object], received: int, seconds: float) -> None:
    """Sends a request, waits for `received` bytes or `seconds`, and cuts the connection."""
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
        )
        connection.sendall(head.encode() + b"\r\n\r\n" + data)
        if received:
            connection.recv(received)
        time.sleep(seconds)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("when", ["queued", "running", "mid-stream"])
def test_a_client_that_leaves_frees_its_slot(stream: bool, when: str):
    if when == "mid-stream" and not stream:
        pytest.skip("nothing is sent before the end")
    engine = FakeEngine(slots=1, context=4000, step_seconds=0.002)
    with running_server(engine, limits=Limits(max_running=1, max_queue=4, queue_seconds=60.0)) as server:
        blocker = None
        if when == "queued":
            blocker = threading.Thread(target=server.complete, kwargs={"prompt": "block", "max_tokens": 200})
            blocker.start()
            wait_for(lambda: server.deployment.supervisor.running == 1)
        body = {**BODY, "stream": stream, "max_tokens": 3000}
        leave_after(server, body, 600 if when == "mid-stream" else 0, 0.1)
        wait_for(lambda: server.counted("aborted") == 1, 3)
        if blocker is not None:
            blocker.join()
        server.wait_idle()
        assert server.complete(prompt="x=ok").json()["choices"][0]["text"] == "ok"


def test_many_connect_and_leave():
    engine = FakeEngine(slots=4, context=4000, step_seconds=0.001)
    with running_server(engine, limits=Limits(max_running=4, max_queue=400, queue_seconds=60.0)) as server:
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: leave_after(server, {**BODY, "max_tokens": 3000}, 0, 0.0), range(200)))
        server.wait_idle()
        assert server.complete(prompt="x=ok").json()["choices"][0]["text"] == "ok"
        assert server.counted("server_error") == 0


def test_a_body_that_drips_is_cut_off():
    with running_server(FakeEngine(), limits=Limits(body_seconds=0.3)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(head(500) + b"{")
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")
        server.wait_idle()


def test_a_client_that_never_reads_holds_no_slot():
    engine = FakeEngine(slots=1, context=60_000)
    with running_server(
        engine, limits=Limits(max_running=1, max_queue=4, queue_seconds=60.0, deadline_seconds=30)
    ) as server:
        data = json.dumps({**BODY, "stream": True, "max_tokens": 50_000}).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(len(data)) + data)
            wait_for(lambda: engine.peak == 1)
            wait_for(lambda: engine.status().slots_free == 1, 20)
            assert server.complete(prompt="x=ok").json()["choices"][0]["text"] == "ok"
        server.wait_idle()


def test_draining_finishes_what_runs_and_refuses_the_rest():
    engine = FakeEngine(step_seconds=0.01)
    with running_server(engine) as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = pool.submit(server.complete, max_tokens=40)
        wait_for(lambda: server.deployment.supervisor.running == 1)
        server.deployment.drain()
        assert server.client.get("/ready").json()["phase"] == "draining"
        assert server.client.get("/ready").status_code == 503
        assert server.client.get("/health").status_code == 200
        refused = server.complete()
        assert refused.status_code == 503
        assert "shutting down" in refused.json()["error"]["message"]
        assert running.result().status_code == 200


def test_stream_keeps_the_connection_alive_while_it_waits():
    engine = FakeEngine()
    with running_server(engine, limits=Limits(keep_alive_seconds=0.05)) as server:
        engine.hold.clear()
        threading.Timer(0.4, engine.hold.set).start()
        text = server.complete(prompt="x=ok", stream=True).text
        assert text.count(": still working") >= 3
        assert '"text":"o"' in text


def test_metrics_count_tokens_times_and_outcomes():
    with running_server(FakeEngine()) as server:
        server.complete(prompt="x=abc", max_tokens=10)
        server.complete(prompt="x=abc", max_tokens=10, stream=True)
        server.complete(n=0)
        server.wait_idle()  # a stream is counted when its last byte is out
        text = server.client.get("/metrics").text
        labels = 'model="m",variant="w8a16"'
        assert f"qtool_generation_tokens_total{{{labels}}} 6.0" in text
        assert f"qtool_prompt_tokens_total{{{labels}}} 12.0" in text
        assert f"qtool_time_to_first_token_seconds_count{{{labels}}} 2.0" in text
        assert f"qtool_inter_token_latency_seconds_count{{{labels}}} 4.0" in text
        assert f'qtool_request_duration_seconds_bucket{{le="2.0",{labels}}} 2.0' in text
        assert f"qtool_ready{{{labels}}} 1.0" in text
        assert server.counted("client_error") == 1
        assert httpx.get(f"{server.address}/metrics").headers["content-type"].startswith("text/plain")
