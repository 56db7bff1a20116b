"""The sequential test keeps its word under constant peeking; the canary splits, sticks, decides; the breaker opens."""

import random

import pytest

from qtool.serve.routing.breaker import Breaker, Thresholds
from qtool.serve.routing.canary import Canary
from qtool.serve.routing.e_process import Comparison


def outcomes(incumbent: float, candidate: float, *, pairs: int, trials: int, margin: float = 0.05) -> dict[str, float]:
    """Share of trials that end in each verdict when one looks after every pair and stops at the first answer."""
    source = random.Random(7)
    found = {"worse": 0, "not worse": 0, "undecided": 0}
    for _ in range(trials):
        test = Comparison(margin=margin, alpha=0.05)
        for _ in range(pairs):
            test.add(float(source.random() < incumbent), candidate=False)
            test.add(float(source.random() < candidate), candidate=True)
            if test.verdict != "undecided":
                break
        found[test.verdict] += 1
    return {name: count / trials for name, count in found.items()}


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_false_alarms_at_the_boundary_stay_below_alpha_however_often_one_looks(rate: float):
    """Exactly at the margin both answers are wrong in turn. 300 trials: the bound is 5 % plus three standard errors."""
    bound = 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    found = outcomes(rate, rate - 0.05, pairs=300, trials=300)
    assert found["worse"] <= bound
    assert found["not worse"] <= bound


def test_it_finds_what_is_there():
    assert outcomes(0.95, 0.60, pairs=400, trials=40)["worse"] > 0.95
    assert outcomes(0.99, 0.99, pairs=800, trials=40)["not worse"] > 0.95


def test_scores_of_one_arm_wait_for_partners_and_not_for_ever():
    test = Comparison(margin=0.1, alpha=0.05)
    for _ in range(5000):
        test.add(1.0, candidate=False)
    assert test.pairs == 0
    for _ in range(100):
        test.add(0.0, candidate=True)
    assert test.verdict == "worse"
    assert test.body()["candidate_mean"] == 0.0


def test_a_share_of_users_sticks_to_the_candidate():
    canary = Canary(share=0.1, margin=0.05, alpha=0.05, automatic=True)
    users = [f"user {number}" for number in range(4000)]
    chosen = [canary.chooses_candidate(user) for user in users]
    assert chosen == [canary.chooses_candidate(user) for user in users]
    assert 0.08 < sum(chosen) / len(users) < 0.12


@pytest.mark.parametrize(("score", "state"), [(0.0, "withdrawn"), (1.0, "promoted")])
def test_it_decides_by_itself_where_that_was_asked_for(score: float, state: str):
    for automatic in (True, False):
        canary = Canary(share=0.5, margin=0.05, alpha=0.05, automatic=automatic)
        for _ in range(400):
            canary.observe(1.0, candidate=False)
            canary.observe(score, candidate=True)
        assert canary.state == (state if automatic else "running")
        assert canary.chooses_candidate("x") == canary.chooses_candidate("x")
    canary.act("withdraw")
    assert not any(canary.chooses_candidate(str(number)) for number in range(100))


class Clock:
    """Time that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("thresholds", "bad"),
    [
        (Thresholds(error_rate=0.2), {"good": False, "seconds": 0.1}),
        (Thresholds(p99_seconds=1.0), {"good": True, "seconds": 3.0}),
        (Thresholds(quality=0.8), {"good": True, "seconds": 0.1, "quality": 0.2}),
    ],
)
def test_errors_slowness_and_bad_answers_open_it_and_probes_close_it(thresholds: Thresholds, bad: dict[str, object]):
    clock = Clock()
    breaker = Breaker(thresholds, clock=clock)
    for _ in range(30):
        breaker.record(good=True, seconds=0.1, quality=1.0)
        assert breaker.allows()
    clock.now += 60
    for _ in range(25):
        breaker.record(**bad)  # type: ignore[arg-type]
    assert breaker.state == "open"
    assert breaker.reason
    assert not breaker.allows()
    clock.now += thresholds.shortest_open_seconds
    assert [breaker.allows() for _ in range(4)] == [True, True, True, False]
    breaker.record(good=False, seconds=0.1)
    assert not breaker.allows()
    clock.now += thresholds.shortest_open_seconds
    assert not breaker.allows()  # it stays open for longer after a failed probe
    clock.now += thresholds.shortest_open_seconds
    for _ in range(3):
        assert breaker.allows()
        breaker.record(good=True, seconds=0.1)
    assert breaker.state == "closed"
