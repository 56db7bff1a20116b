"""An engine that dies, hangs or cannot open: what requests get, what probes say, when it is back."""

import concurrent.futures
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fake_engine import FakeEngine, FakeVocabulary
from live_server import IDENTITY, Running, running_server, serving, threaded, wait_for

from qtool.engine.contract import Engine
from qtool.errors import CapacityError
from qtool.serve.deployment import Deployment, Parts
from qtool.serve.limits import Limits
from qtool.serve.service import Service
from qtool.serve.supervision.hosts import ProcessHost
from qtool.serve.supervision.messages import Opened
from qtool.serve.supervision.wire import Opening

PATIENT = Limits(max_running=2, max_queue=40, queue_seconds=60.0)


@pytest.fixture(autouse=True)
def quiet_threads() -> Iterator[None]:
    """A fake engine that dies in its thread says so in a traceback, which is expected here."""
    hook, threading.excepthook = threading.excepthook, lambda arguments: None
    yield
    threading.excepthook = hook


@contextmanager
def lives(*engines: FakeEngine, limits: Limits = PATIENT) -> Iterator[Running]:
    """A server whose engine's lives are `engines`, the last one again and again."""
    upcoming = iter([*engines, *[engines[-1]] * 20])
    with running_server(engines[-1], limits=limits, make_host=threaded(lambda: next(upcoming))) as server:
        yield server


def test_death_loses_nobody_who_has_seen_nothing():
    first, second = FakeEngine(slots=2, step_seconds=0.01), FakeEngine(slots=2)
    with lives(first, second) as server, concurrent.futures.ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(server.complete, prompt=f"x{number}=done {number}", max_tokens=60) for number in range(6)]
        wait_for(lambda: server.deployment.supervisor.waiting == 4)
        first.die = True
        answers = [answer.result() for answer in asked]
        assert [answer.status_code for answer in answers] == [200] * 6
        assert [answer.json()["choices"][0]["text"] for answer in answers] == [f"done {number}" for number in range(6)]
        assert server.metric("qtool_engine_deaths_total") == 1
        server.wait_idle()


def test_death_in_a_stream_is_an_event_that_says_come_again():
    first, second = FakeEngine(step_seconds=0.01), FakeEngine()
    with lives(first, second) as server:
        body = {"model": "m", "prompt": "hi", "max_tokens": 100, "stream": True}
        with server.client.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            next(lines)
            first.die = True
            rest = [line for line in lines if line]
        error = json.loads(rest[-1].removeprefix("data: "))["error"]
        assert (error["status"], error["retry_after"]) == (503, 1)
        assert "injected" not in "".join(rest)
        wait_for(lambda: server.deployment.readiness.ready)
        assert server.complete(prompt="x=ok").json()["choices"][0]["text"] == "ok"
        server.wait_idle()


def test_a_request_that_ends_every_engine_is_not_tried_for_ever():
    engines = [FakeEngine(slots=2, step_seconds=0.01) for _ in range(3)]
    engines[0].die = engines[1].die = True
    with lives(*engines) as server:
        answer = server.complete()
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        wait_for(lambda: server.deployment.readiness.ready)
        assert server.complete(prompt="x=ok").status_code == 200


def test_a_hung_engine_is_seen_by_both_probes_within_seconds_and_replaced():
    first, second = FakeEngine(), FakeEngine()
    opening = threading.Event()
    upcoming = iter([first, second])

    def prepare(phase: Callable[[str], None]) -> None:
        if opening.is_set():
            time.sleep(1.5)  # loading takes its time
        opening.set()

    limits = Limits(max_running=4, queue_seconds=60.0, stall_seconds=0.5)
    make_host = threaded(lambda: next(upcoming), prepare)
    with running_server(second, limits=limits, make_host=make_host) as server:
        first.hold.clear()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(server.complete, prompt="x=ok", max_tokens=9)
            began = time.monotonic()
            wait_for(lambda: server.client.get("/health").status_code == 503)
            assert server.client.get("/ready").status_code == 503
            assert time.monotonic() - began < 3
            assert server.complete().status_code in (200, 503)  # kept for the next engine, or sent away
            assert asked.result().json()["choices"][0]["text"] == "ok"
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/ready").status_code == 200
        first.hold.set()


def test_an_engine_that_dies_again_and_again_is_broken_until_it_opens():
    engines = [FakeEngine() for _ in range(12)]
    for engine in engines[:9]:
        engine.die = True
    from qtool.serve.supervision import supervisor

    upcoming = iter(engines)
    made: list[FakeEngine] = []

    def make() -> Engine:
        made.append(next(upcoming))
        return made[-1]

    shortest, longest = supervisor._SHORTEST_WAIT_SECONDS, supervisor._LONGEST_WAIT_SECONDS
    supervisor._SHORTEST_WAIT_SECONDS, supervisor._LONGEST_WAIT_SECONDS = 0.01, 0.02
    try:
        with running_server(engines[-1], limits=PATIENT, make_host=threaded(make)) as server:
            statuses = []
            while len(made) < 10:
                wait_for(lambda: server.deployment.readiness.ready)
                statuses.append(server.complete().status_code)
            assert set(statuses[:-1]) == {503}  # the last may have met the first good engine
            wait_for(lambda: server.deployment.readiness.ready)
            assert server.complete(prompt="x=ok").status_code == 200
    finally:
        supervisor._SHORTEST_WAIT_SECONDS, supervisor._LONGEST_WAIT_SECONDS = shortest, longest


def test_an_engine_that_never_opened_is_a_failure_with_its_reason():
    def refuse(phase: object) -> None:
        raise CapacityError("the weights do not fit")

    ends: list[tuple[str, int]] = []
    engine = FakeEngine()
    parts = Parts(FakeVocabulary, threaded(lambda: engine, refuse))
    deployment = Deployment(IDENTITY, parts, PATIENT, on_failure=lambda reason, code: ends.append((reason, code)))
    with serving(Service(deployment), engine) as server:
        wait_for(lambda: bool(ends))
        assert ends == [("the weights do not fit", 9)]
        assert server.client.get("/ready").json()["reason"] == "the weights do not fit"
        assert server.client.get("/health").status_code == 503


def test_who_is_cut_by_the_end_of_the_drain_is_told_at_once():
    engine = FakeEngine(slots=2, step_seconds=0.02)
    with running_server(engine, limits=PATIENT) as server:
        body = {"model": "m", "prompt": "hi", "max_tokens": 100}
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            streams = [
                pool.submit(server.client.post, "/v1/completions", json={**body, "stream": True}) for _ in range(2)
            ]
            whole = [pool.submit(server.client.post, "/v1/completions", json=body) for _ in range(2)]
            wait_for(lambda: len(server.deployment.exchanges) == 4)
            wait_for(lambda: engine.peak == 2)
            server.deployment.drain()
            began = time.monotonic()
            stop = server.deployment.stop
            server.service.decoding.submit(lambda: None)
            loop = server.deployment.supervisor._loop
            assert loop is not None
            loop.call_soon_threadsafe(stop)
            for answer in whole:
                assert answer.result().status_code == 503
                assert answer.result().json()["error"]["retry_after"] == 1
            for answer in streams:
                last = answer.result().text.strip().split("\n\n")[-1]
                assert json.loads(last.removeprefix("data: "))["error"]["status"] == 503
            assert time.monotonic() - began < 1
        server.wait_idle()


def fake_opener(**options: Any) -> Callable[[Callable[[str], None]], tuple[Engine, Opened]]:
    """How a child process opens a fake engine."""

    def open_fake(phase: Callable[[str], None]) -> tuple[Engine, Opened]:
        engine = FakeEngine(**options)
        return engine, Opened(engine.status(), (("process", str(os.getpid())),))

    return open_fake


FAKE = Opening(f"{__name__}:fake_opener", {"slots": 4, "context": 400, "step_seconds": 0.005})


@pytest.fixture
def forked() -> Iterator[Running]:
    """A server whose engine is a process."""
    limits = Limits(max_running=4, max_queue=100, queue_seconds=60.0)
    parts = Parts(FakeVocabulary, lambda: ProcessHost(FAKE))
    with serving(Service(Deployment(IDENTITY, parts, limits)), FakeEngine()) as server:
        wait_for(lambda: server.deployment.readiness.ready, 60)
        yield server


def test_an_engine_in_a_process_killed_under_load_loses_nothing_in_silence(forked: Running):
    pids = {forked.deployment.supervisor.pid}
    assert os.getpid() not in pids
    ended = threading.Event()
    statuses: list[int] = []
    texts: set[str] = set()

    def client(number: int) -> None:
        with httpx.Client(base_url=forked.address, timeout=60) as mine:
            while not ended.is_set():
                body = {"model": "m", "prompt": f"p{number}=fine", "max_tokens": 30, "temperature": 0}
                answer = mine.post("/v1/completions", json=body)
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    texts.add(answer.json()["choices"][0]["text"])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client, number) for number in range(6)]
        for _ in range(3):
            wait_for(lambda: forked.deployment.readiness.ready, 30)
            before = statuses.count(200)
            wait_for(lambda before=before: statuses.count(200) > before + 5, 30)
            pid = forked.deployment.supervisor.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            pids.add(pid)
            wait_for(lambda: not forked.deployment.readiness.ready)
        wait_for(lambda: forked.deployment.readiness.ready, 30)
        ended.set()
        for waiting in clients:
            waiting.result()
    assert set(statuses) <= {200, 503}
    assert texts == {"fine"}
    assert forked.deployment.supervisor.restarts == 3
    supervisor = forked.deployment.supervisor
    wait_for(lambda: not (forked.deployment.places.admitted or supervisor.running or supervisor.waiting))


def test_an_engine_that_is_stopped_is_hung_and_replaced(forked: Running):
    forked.deployment.supervisor._stall_seconds = 1.0
    first = forked.deployment.supervisor.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: not forked.deployment.readiness.ready, 5)
    wait_for(lambda: forked.deployment.readiness.ready, 30)
    assert forked.deployment.supervisor.pid != first
    assert forked.complete(prompt="x=ok").json()["choices"][0]["text"] == "ok"
