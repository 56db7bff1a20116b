"""Times: definitions, quantiles with their refusals, open and closed load, the stage over two real folders."""

import json
from pathlib import Path

import pytest

from qtool.engine.contract import EngineStatus, GenerationRequest, Scored, ScoreRequest, TokenEvent
from qtool.errors import UsageError
from qtool.latency.cold_start import ColdStart
from qtool.latency.quantiles import quantile, samples_needed
from qtool.latency.timing import Limits, Load, Timed, summarize
from qtool.latency.traffic import random_requests, send
from qtool.progress import Silent
from qtool.records.latency import LatencyProfile
from qtool.records.plan import LatencySettings
from qtool.store.codec import read_json
from tests.tiny_model import make_tiny_llama


def test_definitions_are_vllms() -> None:
    timed = Timed(10.0, (10.5, 10.6, 10.9), 4)
    assert timed.ttft_ms == pytest.approx(500.0)
    assert timed.e2e_ms == pytest.approx(900.0)
    assert timed.tpot_ms == pytest.approx(200.0)
    assert timed.itl_ms == pytest.approx((100.0, 300.0))
    assert Timed(0.0, (1.0,), 4).tpot_ms is None


def test_p99_is_refused_under_a_thousand_samples() -> None:
    assert samples_needed(0.99) == 1000
    refused = quantile([1.0] * 999, 0.99)
    assert refused.value_ms is None
    assert (refused.samples, refused.samples_needed) == (999, 1000)
    shown = quantile([float(number) for number in range(1000)], 0.99)
    assert shown.value_ms == pytest.approx(989.0, abs=1.0)
    assert shown.interval is not None
    assert shown.interval.low < 989.0 < shown.interval.high


def test_the_median_of_ten_has_an_interval_from_its_order_statistics() -> None:
    found = quantile([float(number) for number in range(1, 11)], 0.5)
    assert found.value_ms == pytest.approx(5.5)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (2.0, 9.0)  # binomial(10, 1/2): the textbook sign interval


def test_goodput_counts_requests_within_both_limits() -> None:
    fast, slow = Timed(0.0, (0.1, 0.15), 1), Timed(0.0, (0.1, 0.9), 1)
    failed = Timed(0.0, (), 1, "refused")
    level = summarize(Load(2), [fast, slow, failed], 2.0, Limits(ttft_ms=200, tpot_ms=100))
    assert level.goodput_per_second == pytest.approx(0.5)
    assert (level.requests, level.failed) == (2, 1)
    assert level.output_tokens_per_second == pytest.approx(2.0)


class Clockwork:
    """An engine that gives each request one token a step and knows how many it ever held at once."""

    kernels: tuple[tuple[str, str], ...] = ()
    weight_bytes = cache_bytes = 0
    notes: tuple[str, ...] = ()
    device, dtype, simulated = "cpu", "float32", False

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.next = 0
        self.most = 0

    def submit(self, request: GenerationRequest) -> int:
        self.next += 1
        self.left[self.next] = request.max_new_tokens
        self.most = max(self.most, len(self.left))
        return self.next

    def step(self) -> list[TokenEvent]:
        import time

        events = []
        for number in list(self.left):
            self.left[number] -= 1
            finish = "length" if not self.left[number] else None
            events.append(TokenEvent(number, 1, 0.0, time.monotonic(), finish=finish))
            if finish:
                del self.left[number]
        return events

    def score(self, requests: list[ScoreRequest]) -> list[Scored]:  # type: ignore[override]
        raise NotImplementedError

    def abort(self, request: int) -> None:
        raise NotImplementedError

    def status(self) -> EngineStatus:
        return EngineStatus(len(self.left), 0, 8, 8, 64, 50)

    def close(self) -> None:
        return None


def made_up(count: int) -> list[GenerationRequest]:
    return list(random_requests(count, prompt_tokens=3, output_tokens=4, vocabulary=50, seed=0))


def test_a_closed_load_keeps_exactly_so_many_in_flight() -> None:
    engine = Clockwork()
    timed, _ = send(engine, made_up(20), Load(3))  # type: ignore[arg-type]
    assert len(timed) == 20
    assert engine.most == 3


def test_an_open_load_has_the_rate_that_was_asked() -> None:
    timed, seconds = send(Clockwork(), made_up(40), Load(1, rate_per_second=400.0))  # type: ignore[arg-type]
    assert len(timed) == 40
    assert seconds == pytest.approx(0.1, abs=0.09)
    gaps = sorted(request.sent_s for request in timed)
    assert gaps[-1] - gaps[0] < 0.11  # a request's clock starts when it was due, however busy the engine is


def test_requests_share_no_prefix_and_repeat_with_the_seed() -> None:
    first, again = made_up(4), made_up(4)
    assert first == again
    assert len({request.ids for request in first}) == 4


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cold starts are tested by themselves: a fresh process takes seconds."""
    monkeypatch.setattr("qtool.latency.stage.cold_start", lambda folder, trial: ColdStart(1.0, 0.5, 1000))
    monkeypatch.setattr("qtool.latency.stage.measured_bandwidth", lambda device: 1e10)


@pytest.mark.usefixtures("no_processes")
def test_the_stage_writes_profiles_and_raw_samples(tmp_path: Path) -> None:
    from qtool.latency.stage import measure

    base = make_tiny_llama(tmp_path / "base")
    settings = LatencySettings(concurrency=(1, 3), requests=6, prompt_tokens=5, output_tokens=4)
    profiles = measure({"a": base, "b": base}, settings, tmp_path / "out", progress=Silent(), rates=(50.0,))
    assert [profile.variant for profile in profiles] == ["a", "b"]
    for profile in profiles:
        assert read_json(LatencyProfile, tmp_path / "out" / f"{profile.variant}.json") == profile
        assert [level.arrivals for level in profile.levels] == ["closed", "closed", "open"]
        assert all(level.requests == 6 and level.output_tokens == 4 for level in profile.levels)
        assert profile.roofline_ratio is not None
        assert profile.weight_bytes > 0
        samples = json.loads((tmp_path / "out" / f"{profile.variant}.samples.json").read_text())
        assert {name: len(found) for name, found in samples.items()} == {"closed-1": 6, "closed-3": 6, "open-50": 6}


@pytest.mark.usefixtures("no_processes")
def test_prompts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from qtool.latency.stage import measure

    base = make_tiny_llama(tmp_path / "base")
    with pytest.raises(UsageError, match="context"):
        measure({"a": base}, LatencySettings((1,), 2, 300, 4), tmp_path / "out", progress=Silent())
    assert not (tmp_path / "out" / "a.json").exists()


def test_a_cold_start_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    from qtool.latency.cold_start import Trial, cold_start

    ballast = bytearray(1 << 30)  # the process that asks is large; that must not count for the one that is measured
    ballast[:: 1 << 12] = b"x" * (1 << 18)
    found = cold_start(make_tiny_llama(tmp_path / "base"), Trial(2, 4, 3))
    assert 0 < found.load_seconds < found.first_token_seconds
    assert 50 << 20 < found.peak_memory_bytes < 1 << 30
