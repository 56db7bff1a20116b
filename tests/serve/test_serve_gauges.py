"""Gauges that are read when somebody scrapes: engine, queue, processes, classes of keys."""

import pytest
from fake_engine import FakeEngine
from live_server import running_server, wait_for

from qtool.engine.contract import EngineStatus, GenerationRequest
from qtool.serve.admission.places import Places
from qtool.serve.api.refusal import Refused
from qtool.serve.supervision.jobs import Expired, Job, Shed
from qtool.serve.supervision.messages import Beat
from qtool.serve.watching.load import Waits, kept_ratio


class Clock:
    """Time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_p99_of_the_queue_is_that_of_the_last_five_minutes():
    clock = Clock()
    waits = Waits(clock)
    assert waits.p99() == 0.0
    for number in range(200):
        waits.add(number / 100)
    assert waits.p99() == 1.98
    clock.now += 200
    waits.add(0.5)
    clock.now += 200
    assert waits.p99() == 0.5


def test_key_value_use_is_what_the_engine_last_told():
    assert kept_ratio(Beat()) == 0.0
    assert kept_ratio(Beat(EngineStatus(1, 0, 3, 4, 128, 1000, kept_tokens=64, room_tokens=256))) == 0.25


class Keeping(FakeEngine):
    """Tells of memory and prefixes."""

    def status(self) -> EngineStatus:
        told = super().status()
        return EngineStatus(
            told.running, 0, told.slots_free, told.slots, told.context_tokens, told.vocabulary, 32, 128, 40, 10
        )


def test_engine_and_processes_are_scraped():
    engine = Keeping()
    with running_server(engine) as server:
        wait_for(lambda: server.metric("qtool_kv_cache_usage_ratio") == 0.25)
        assert server.metric("qtool_prefix_cache_queries") == 40
        assert server.metric("qtool_prefix_cache_hits") == 10
        assert server.metric("qtool_gpu_memory_bytes") == 0
        server.service.vllm_metrics = True
        text = server.client.get("/metrics").text
        assert 'vllm:kv_cache_usage_perc{model_name="m",variant="w8a16"} 0.25' in text
        for name in ("process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"):
            assert f"\n{name} " in text
        assert server.service._engine_pid() is None  # a thread of this process has none of its own


def test_the_lateness_of_the_event_loop_counts_as_waiting():
    clock = Clock()
    places = Places(1, 100, queue_seconds=1.0, clock=clock)
    for _ in range(4):  # two a second become free
        ticket = places.admit(1)
        clock.now += 0.5
        ticket.release()
    places.admit(1)
    places.admit(1, ahead=1)
    places.lag_seconds = 0.8
    with pytest.raises(Refused, match="the wait would be"):
        places.admit(1, ahead=1)
    places.admit(1)  # who need not queue is not turned away


def test_a_job_tells_once_why_it_is_over():
    told: list[object] = []
    job = Job(GenerationRequest((1,), 1), deadline_s=10.0, deliver=told.append, start_by_s=5.0)
    assert not job.is_over(4.9)
    assert job.is_over(5.0)
    assert job.is_over(10.0)
    assert [type(event) for event in told] == [Shed, Expired]
