"""Answers looked at twice: drift from the calibration, and what a reference would have said."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine, FakeVocabulary
from live_server import serving, threaded, wait_for

from qtool.engine.contract import ScoreRequest
from qtool.kernels.log2_histogram import count_bins
from qtool.records.histogram import Histogram
from qtool.serve.deployment import Deployment, Identity, Parts
from qtool.serve.limits import Limits
from qtool.serve.routing.breaker import Breaker, Thresholds
from qtool.serve.routing.canary import Canary
from qtool.serve.routing.router import Router
from qtool.serve.service import Service
from qtool.serve.supervision.errands import Errands, compare, divergence, look
from qtool.serve.supervision.messages import Compare, Look, Looked
from qtool.serve.watching.drift import Alarm, Calibrated, Drift, calibrated
from qtool.serve.watching.metrics import Metrics
from qtool.serve.watching.second_look import Rates, SecondLook


def variant(name: str, engine: FakeEngine) -> Deployment:
    """A variant of the model `m`."""
    parts = Parts(FakeVocabulary, threaded(lambda: engine))
    return Deployment(Identity("m", name, f"qtool-{name}", 1), parts, Limits(queue_seconds=60.0))


def histogram(values: Sequence[float]) -> Histogram:
    """The histogram of `values`."""
    return Histogram(count_bins(torch.tensor(values)).numpy(), min(values), max(values))


def layer_of(texts: Sequence[str], name: str = "layer") -> Calibrated:
    """What the fake engine's layer saw in a calibration on `texts`."""
    values = [value / 64 for text in texts for value in (256, *text.encode())]
    return calibrated(name, histogram(values), min(values), max(values))


def counts(values: Sequence[float], name: str = "layer") -> tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]:
    """`values` as an engine reports them."""
    found = count_bins(torch.tensor(values)).numpy()
    (bins,) = found.nonzero()
    return ((name, tuple(bins.tolist()), tuple(found[bins].tolist())),)


def test_parts_hold_equal_shares_and_the_same_values_have_no_drift():
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(0)).tolist()
    layer = calibrated("layer", histogram(values), -3.0, 3.0)
    assert layer.shares.sum() == pytest.approx(1.0)
    assert layer.shares.max() < 0.07  # a twentieth each, as near as whole bins allow
    assert layer.clip_ratio == pytest.approx(np.mean(np.abs(values) > 3.0), rel=0.05)
    drift = Drift([layer], Metrics("m", "v", "f"), Alarm(tokens=10))
    fresh = torch.randn(50_000, generator=torch.Generator().manual_seed(1)).tolist()
    drift.add("r", 5_000, counts(fresh))
    body = drift.body()
    assert body["alarm"] == []
    assert body["layers"]["layer"]["psi"] < 0.01  # type: ignore[index]


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (0.0, 2.5), (0.0, 0.3)], ids=["moved", "wider", "narrower"])
def test_shifted_values_alarm(shift: float, scale: float):
    generator = torch.Generator().manual_seed(0)
    layer = calibrated("layer", histogram(torch.randn(50_000, generator=generator).tolist()), -4.0, 4.0)
    drift = Drift([layer], Metrics("m", "v", "f"), Alarm(tokens=10))
    drift.add("r", 5_000, counts((torch.randn(5_000, generator=generator) * scale + shift).tolist()))
    assert drift.alarmed == ("layer",)


def test_clipped_values_alarm_though_they_are_few():
    generator = torch.Generator().manual_seed(0)
    layer = calibrated("layer", histogram(torch.randn(50_000, generator=generator).tolist()), -4.0, 4.0)
    drift = Drift([layer], Metrics("m", "v", "f"), Alarm(tokens=10))
    drift.add("r", 5_000, counts([*torch.randn(5_000, generator=generator).tolist(), *[9.0] * 100]))
    assert drift.alarmed == ("layer",)
    assert drift.body()["layers"]["layer"]["psi"] < 0.25  # type: ignore[index]


def test_few_tokens_alarm_nobody_and_old_requests_are_forgotten():
    generator = torch.Generator().manual_seed(0)
    layer = calibrated("layer", histogram(torch.randn(50_000, generator=generator).tolist()), -4.0, 4.0)
    drift = Drift([layer], Metrics("m", "v", "f"), Alarm(requests=3, tokens=100))
    strange = counts([8.0] * 50)
    drift.add("odd", 50, strange)
    assert drift.alarmed == ()
    drift.add("odd too", 50, strange)
    assert drift.alarmed == ("layer",)
    for number in range(3):
        drift.add(f"usual {number}", 5_000, counts(torch.randn(5_000, generator=generator).tolist()))
    assert drift.alarmed == ()
    assert drift.body()["requests"] == 3


USUAL = ("how do you do", "what is it", "the sum of all", "tell me more")


@pytest.mark.parametrize(("prompts", "alarm"), [(USUAL, 0.0), (("0123456789", "9876543210 00"), 1.0)])
def test_live_traffic_is_held_against_the_calibration(
    prompts: tuple[str, ...], alarm: float, caplog: pytest.LogCaptureFixture
):
    engine = FakeEngine()
    served = variant("int4", engine)
    # the engine answers with the prompt itself: its tokens are those of the prompts
    served.drift = Drift([layer_of([f"{text}={text}{text}" for text in USUAL])], served.metrics, Alarm(tokens=200))
    service = Service(Router([served]))
    service.second_look = SecondLook(rates=Rates(drift=1.0))
    caplog.set_level(logging.WARNING, "qtool.serve")
    with serving(service, engine) as server:
        wait_for(lambda: served.readiness.ready)
        for number in range(20):
            text = prompts[number % len(prompts)]
            answer = server.client.post(
                "/v1/completions",
                json={"model": "m", "prompt": f"{text}={text}", "max_tokens": 60},
                headers={"x-request-id": f"r{number}"},
            )
            assert answer.status_code == 200
        wait_for(lambda: len(served.drift._seen) == 20)  # type: ignore[union-attr]
        assert server.metric("qtool_drift_alarm", variant="int4") == alarm
        body = server.client.get("/admin/quality").json()["drift"]["int4"]
        assert bool(body["alarm"]) == bool(alarm)
        assert len(body["offending"]) == 5
        assert all(entry["request"].startswith("r") for entry in body["offending"])
        psi = server.metric("qtool_drift_psi", variant="int4", layer="layer")
        assert psi == pytest.approx(body["layers"]["layer"]["psi"])
    warned = [record for record in caplog.records if "left what was calibrated" in record.message]
    assert len(warned) == int(alarm)
    if warned:
        assert set(warned[0].fields["offending"]) <= {f"r{number}" for number in range(20)}  # type: ignore[attr-defined]


def test_nothing_is_looked_at_twice_that_was_not_drawn():
    look = SecondLook(rates=Rates(drift=0.1))
    served = variant("int4", FakeEngine())
    assert not any(look.wants(str(number), served)[0] for number in range(100))  # nothing to compare with
    served.drift = Drift([layer_of(USUAL)], served.metrics)
    drawn = sum(look.wants(str(number), served)[0] for number in range(5000))
    assert 400 < drawn < 600
    assert not any(look.wants(str(number), served)[1] for number in range(100))  # no reference


def test_a_reference_reads_answers_again_and_their_acceptance_is_the_quality_score():
    engine, reference = FakeEngine(), FakeEngine()
    reference.disagree = frozenset(b"b")
    service = Service(Router([variant("int4", engine)]))
    service.second_look = SecondLook(variant("bf16", reference), Rates(shadow=1.0))
    with serving(service, engine) as server:
        wait_for(lambda: server.deployment.readiness.ready)
        wait_for(lambda: service.second_look.reference.readiness.ready)  # type: ignore[union-attr]
        for _ in range(3):
            assert server.complete(prompt="x=aabb").status_code == 200
        wait_for(lambda: server.metric("qtool_shadow_answers_total", variant="int4") == 3)
        # at the two places of "b" the reference gives it 1/4: it would take it one time in four
        assert server.metric("qtool_quality_score", variant="int4") == pytest.approx(1 - 0.75 / 2, abs=1e-3)
        assert server.metric("qtool_shadow_agreement", variant="int4") == pytest.approx(0.5)
        nats = 0.75 * math.log(0.75 / 1e-9) + 0.25 * math.log(0.25)
        assert server.metric("qtool_shadow_kl_nats", variant="int4") == pytest.approx(nats / 2, rel=1e-3)
        assert server.client.get("/admin/quality").json()["shadow"]["int4"]["answers"] == 3
        reference.hold.clear()
        for _ in range(3):
            assert server.complete(prompt="x=aabb").status_code == 200  # never waits for it
        reference.hold.set()


def test_what_the_reference_says_decides_the_canary():
    good, bad, reference = FakeEngine(), FakeEngine(), FakeEngine()
    reference.disagree = frozenset(b"b")
    first, second = variant("base", good), variant("int4", bad)
    canary = Canary(share=0.5, margin=0.05, alpha=0.05, automatic=True)
    service = Service(Router([first], candidate=second, canary=canary))
    service.second_look = SecondLook(variant("bf16", reference), Rates(shadow=1.0))
    with serving(service, good) as server:
        wait_for(lambda: first.readiness.ready and second.readiness.ready)
        wait_for(lambda: service.second_look.reference.readiness.ready)  # type: ignore[union-attr]
        done = 0
        while canary.state == "running" and done < 60:
            candidate = canary.chooses_candidate(f"u{done}")
            # the canary's users are answered with what the reference would not say
            body = {"model": "m", "user": f"u{done}", "max_tokens": 9, "prompt": "x=bbbb" if candidate else "x=aaaa"}
            assert server.client.post("/v1/completions", json=body).status_code == 200
            done += 1
        wait_for(lambda: canary.state == "withdrawn")
        assert canary.comparison.verdict == "undecided"  # no answer shows a sign of damage
        assert canary.body()["shadow"]["verdict"] == "worse"  # type: ignore[index]


def test_what_the_reference_says_opens_the_breaker():
    breaker = Breaker(Thresholds(shadow=0.9, fewest=5))
    for _ in range(4):
        breaker.record_shadow(0.25)
    assert breaker.state == "closed"  # too few to tell
    breaker.record_shadow(0.25)
    assert (breaker.state, "reference" in breaker.reason) == ("open", True)
    indifferent = Breaker(Thresholds(fewest=5))
    for _ in range(5):
        indifferent.record_shadow(0.0)
    assert indifferent.state == "closed"


def test_divergence_of_whole_distributions():
    p = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], dtype=np.float32))
    q = np.log(np.array([[0.5, 0.5], [0.2, 0.8]], dtype=np.float32))
    kl, agreement, acceptance = divergence(p, q)
    assert kl == pytest.approx((0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)) / 2, rel=1e-5)
    assert agreement == 0.5
    assert acceptance == pytest.approx((1.0 + 0.3) / 2, rel=1e-5)
    assert divergence(p, p) == (0.0, 1.0, pytest.approx(1.0))


def test_engines_compare_through_a_file_and_a_broken_file_is_a_reason(tmp_path: Path):
    request, path = ScoreRequest((1, 2), (97, 98)), tmp_path / "distributions"
    assert look(FakeEngine(), Look(1, request, (0, 1), (), str(path))) == Looked(1, ())
    compared = compare(FakeEngine(), Compare(2, request, (0, 1), str(path)))
    assert (compared.reason, compared.agreement) == ("", 1.0)
    path.write_bytes(path.read_bytes()[:-4])
    assert compare(FakeEngine(), Compare(3, request, (0, 1), str(path))).reason
    assert compare(FakeEngine(), Compare(4, request, (0,), str(tmp_path / "none"))).reason
    assert look(FakeEngine(), Look(5, request, (0,), (), str(tmp_path))).reason


def test_a_busy_engine_does_an_errand_only_after_a_while():
    errands = Errands()
    assert not errands.due()
    errands.add(Look(1, ScoreRequest((1,), (2,)), (), (), ""))
    assert not errands.due()
    number, since = errands._waiting[0]
    errands._waiting[0] = (number, since - 10)
    assert errands.due()
    errands.run(FakeEngine())
    errands.add(number)
    errands._waiting[0] = (number, since - 10)
    errands._next_s = math.inf  # as after a long one
    assert not errands.due()
