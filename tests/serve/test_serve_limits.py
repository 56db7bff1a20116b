"""Every limit is kept: one check for each field of Limits, and bodies and connections that try to stop the others."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine
from live_server import Running, running_server, wait_for

from qtool.serve.limits import Limits

JSON = {"content-type": "application/json"}
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "


def limited(**limits: Any) -> Limits:
    """Limits with those given, and a queue that patient tests need not hurry for."""
    return Limits(**{"queue_seconds": 60.0, **limits})


@contextmanager
def held(server: Running, count: int, **body: Any) -> Iterator[None]:
    """`count` requests that are in the engine or wait for it while the block runs."""
    server.engine.hold.clear()
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        asked = [pool.submit(server.complete, max_tokens=100, **body) for _ in range(count)]
        supervisor = server.deployment.supervisor
        wait_for(lambda: supervisor.running + supervisor.waiting >= count)
        yield
        server.engine.hold.set()
        for answer in asked:
            answer.result()


def max_running() -> None:
    with running_server(FakeEngine(slots=8), limits=limited(max_running=2)) as server, held(server, 5):
        assert server.deployment.supervisor.running == 2


def max_queue() -> None:
    with running_server(FakeEngine(slots=1), limits=limited(max_running=1, max_queue=1)) as server, held(server, 2):
        assert server.complete().status_code == 503


def queue_seconds() -> None:
    limits = limited(max_running=1, max_queue=50, queue_seconds=0.3)
    with running_server(FakeEngine(slots=1), limits=limits) as server:
        server.engine.hold.clear()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            began = time.monotonic()
            asked = [pool.submit(server.complete) for _ in range(4)]
            wait_for(lambda: sum(answer.done() for answer in asked) == 3)
            assert 0.2 < time.monotonic() - began < 2
            server.engine.hold.set()
        assert sorted(answer.result().status_code for answer in asked) == [200, 503, 503, 503]
        assert server.metric("qtool_request_queue_time_seconds_count") == 4  # who waited in vain is seen too


def max_connections() -> None:
    with running_server(FakeEngine(), limits=limited(max_connections=4)) as server:
        idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(4)]
        wait_for(lambda: server.service.connections.open == 4)
        assert httpx.get(f"{server.address}/health").status_code == 200  # the oldest idle one had to go
        assert idle[0].recv(100) == b""
        with held(server, 4), socket.create_connection(("127.0.0.1", server.port), timeout=5) as late:
            assert late.recv(100).startswith(b"HTTP/1.1 503")
        for connection in idle:
            connection.close()


def header_seconds() -> None:
    with running_server(FakeEngine(), limits=limited(header_seconds=0.3)) as server:
        for begin in (b"", b"GET /health HTTP/1.1\r\nHost:"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
                slow.sendall(begin)
                assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert server.client.get("/health").status_code == 200


def idle_seconds() -> None:
    with (
        running_server(FakeEngine(), limits=limited(idle_seconds=0.3)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as kept,
    ):
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):  # head and body may come apart
            answer += kept.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert kept.recv(100) == b""
        assert time.monotonic() - began < 3


def max_header_bytes() -> None:
    with running_server(FakeEngine(), limits=limited(max_header_bytes=2000)) as server:
        answer = httpx.get(f"{server.address}/health", headers={"x-long": "a" * 4000})
        assert answer.status_code == 431
        endless = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 400_000
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(endless)
            assert connection.recv(100).startswith(b"HTTP/1.1 4")


def max_headers() -> None:
    with running_server(FakeEngine(), limits=limited(max_headers=10)) as server:
        many = {f"x-{number}": "1" for number in range(12)}
        assert server.client.get("/health", headers=many).status_code == 431


def max_body_bytes() -> None:
    with running_server(FakeEngine(), limits=limited(max_body_bytes=500)) as server:
        assert server.complete(user="x", prompt="y" * 600).status_code == 413


def max_reading_bytes() -> None:
    with running_server(FakeEngine(), limits=limited(max_reading_bytes=3000)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(HEAD + b"4000\r\n\r\n" + b" " * 2900)
            wait_for(lambda: server.service.reading.held_bytes == 2900)
            assert server.complete(user="x" * 200).status_code == 503
        server.wait_idle()
        assert server.complete(user="x" * 200).status_code == 200


def body_seconds() -> None:
    with (
        running_server(FakeEngine(), limits=limited(body_seconds=0.2)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow,
    ):
        slow.sendall(HEAD + b"400\r\n\r\n{")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def max_items() -> None:
    with running_server(FakeEngine(context=1000), limits=limited(max_items=50)) as server:
        assert server.complete(prompt=[97] * 60).status_code == 400
        assert server.complete(prompt="," * 60).status_code == 200


def max_messages() -> None:
    with running_server(FakeEngine(context=1000), limits=limited(max_messages=3)) as server:
        four = [{"role": "user", "content": "x"}] * 4
        assert "at most 3" in server.chat(messages=four).json()["error"]["message"]
        assert server.chat(messages=four[:3]).status_code == 200


def max_choices() -> None:
    with running_server(FakeEngine(), limits=limited(max_choices=3)) as server:
        assert server.complete(n=4, temperature=1).status_code == 400
        assert server.complete(prompt=["a", "b"], n=2, temperature=1).status_code == 400
        assert server.complete(n=3, temperature=1).status_code == 200


def prepare_seconds() -> None:
    with running_server(FakeEngine(), limits=limited(prepare_seconds=0.2)) as server:
        gate = threading.Event()
        server.deployment.preparing.submit(gate.wait, 5)
        assert "too long to tokenize" in server.complete().json()["error"]["message"]
        gate.set()
        server.wait_idle()


def default_tokens() -> None:
    with running_server(FakeEngine(context=1000), limits=limited(default_tokens=7)) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        assert server.client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"] == 7


def deadline_seconds() -> None:
    with running_server(FakeEngine(step_seconds=0.02), limits=limited(deadline_seconds=0.3)) as server:
        assert server.complete(max_tokens=100).status_code == 504
        assert server.metric("qtool_request_duration_seconds_count") == 1  # the slowest requests are seen, too


def drain_seconds() -> None:
    with running_server(FakeEngine(step_seconds=0.02), limits=limited(drain_seconds=0.2)) as server:
        import asyncio

        with held(server, 1):
            began = time.monotonic()
            asyncio.run(server.deployment.drained())
            assert 0.15 < time.monotonic() - began < 2


def keep_alive_seconds() -> None:
    with running_server(FakeEngine(), limits=limited(keep_alive_seconds=0.05)) as server:
        server.engine.hold.clear()
        threading.Timer(0.4, server.engine.hold.set).start()
        assert server.complete(stream=True).text.count(": still working") >= 3


def stall_seconds() -> None:
    engines = [FakeEngine(), FakeEngine()]
    from live_server import threaded

    lives = iter(engines)
    with running_server(
        engines[1], limits=limited(stall_seconds=0.5), make_host=threaded(lambda: next(lives))
    ) as server:
        engines[0].hold.clear()
        assert server.complete(prompt="x=ok").json()["choices"][0]["text"] == "ok"  # by the second engine
        assert server.deployment.supervisor.restarts == 1
        engines[0].hold.set()


def window_seconds() -> None:
    """Requests that are being prepared begin together with one that found the engine idle."""
    for window, starts in ((0.0, {1, 2}), (0.5, {1})):
        engine = FakeEngine(slots=4)
        with running_server(engine, limits=limited(window_seconds=window)) as server:
            preparing = server.deployment.preparing
            encode = server.deployment.vocabulary.encode
            server.deployment.vocabulary.encode = lambda text, e=encode: (time.sleep(0.1), e(text))[1]  # type: ignore
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                asked = [pool.submit(server.complete, max_tokens=3) for _ in range(2)]
                assert all(answer.result().status_code == 200 for answer in asked)
            assert preparing is server.deployment.preparing
            assert (engine.peak == 2) == (starts == {1})


CHECKS: dict[str, Callable[[], None]] = {
    field.name: globals()[field.name] for field in fields(Limits) if field.name in globals()
}


def test_every_limit_has_a_check():
    assert set(CHECKS) == {field.name for field in fields(Limits)}


@pytest.mark.parametrize("name", CHECKS)
def test_a_limit_is_kept(name: str):
    CHECKS[name]()


HEAVY = {
    "45,000 texts as messages": {"messages": ["a"] * 45_000},
    "44,000 empty messages": {"messages": [{}] * 44_000},
    "900,000 numbers as messages": {"messages": [1] * 650_000},
    "150,000 keys": {f"key{number}": 1 for number in range(120_000)},
    "33,000 assistant messages": {"messages": [{"role": "assistant", "content": "x"}] * 33_000},
    "half a million ids": {"prompt": [1] * 600_000},
    "ids that are no ids": {"prompt": [1] * 99_000 + ["x"]},
    "texts as prompts": {"prompt": ["a"] * 300_000},
    "a million quotes": {"prompt": '"' * 900_000},
    "stops": {"stop": ["a"] * 90_000, "prompt": "x"},
    "deep": {"prompt": json.loads("[" * 800 + "]" * 800)},
}


@pytest.mark.parametrize("name", HEAVY)
def test_probes_answer_at_once_whatever_is_sent(served: Running, name: str):
    """Bodies of legal size that took the event loop seconds. The bound leaves room for a loaded machine."""
    with running_server(FakeEngine()) as server:
        path = "/v1/chat/completions" if "messages" in HEAVY[name] else "/v1/completions"
        body = json.dumps({"model": "m", **HEAVY[name]}).encode()
        assert len(body) < 2_000_000
        waits: list[float] = []
        ended = threading.Event()

        def probe() -> None:
            with httpx.Client(base_url=server.address) as client:
                while not ended.is_set():
                    began = time.perf_counter()
                    assert client.get("/health").status_code == 200
                    waits.append(time.perf_counter() - began)

        prober = threading.Thread(target=probe)
        prober.start()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            send = lambda _: httpx.post(f"{server.address}{path}", content=body, headers=JSON, timeout=20)  # noqa: E731
            answers = list(pool.map(send, range(4)))
        ended.set()
        prober.join()
        assert {answer.status_code for answer in answers} == {400}
        assert max(waits) < 2.0
        assert sorted(waits)[int(len(waits) * 0.9)] < 0.1


def test_a_hundred_half_sent_heads_are_let_go():
    with running_server(FakeEngine(), limits=limited(header_seconds=0.5, max_connections=80)) as server:
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        for connection in waiting:
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert server.client.get("/health").status_code == 200  # although all places were taken
        for connection in waiting:
            connection.settimeout(5)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(200).startswith((b"HTTP/1.1 408", b"HTTP/1.1 503", b""))
        wait_for(lambda: server.service.connections.open <= 1)
        for connection in waiting:
            connection.close()


def test_a_small_request_is_not_behind_the_sixty_of_another_user():
    limits = limited(max_running=2, max_queue=100)
    with running_server(FakeEngine(slots=2, step_seconds=0.002), limits=limits) as server:
        order: list[str] = []

        def ask(user: str) -> None:
            assert server.complete(user=user, max_tokens=10).status_code == 200
            order.append(user)

        server.engine.hold.clear()
        with concurrent.futures.ThreadPoolExecutor(61) as pool:
            many = [pool.submit(ask, "many") for _ in range(60)]
            wait_for(lambda: server.deployment.supervisor.waiting == 58)
            pool.submit(ask, "one")
            wait_for(lambda: server.deployment.supervisor.waiting == 59)
            server.engine.hold.set()
            concurrent.futures.wait(many)
        assert order.index("one") < 10


def test_an_overload_is_over_within_seconds():
    limits = Limits(max_running=2, max_queue=100, queue_seconds=0.5)
    with running_server(FakeEngine(slots=2, step_seconds=0.01), limits=limits) as server:
        times: list[float] = []

        def ask(_: int) -> int:
            began = time.monotonic()
            status = server.complete(max_tokens=10).status_code
            if status == 200:
                times.append(time.monotonic() - began)
            return status

        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            statuses = list(pool.map(ask, range(150)))
        assert set(statuses) == {200, 503}
        assert max(times) < 0.5 + 2.0
        began = time.monotonic()
        assert server.complete().status_code == 200
        assert time.monotonic() - began < 1
