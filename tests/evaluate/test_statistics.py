"""Intervals and tests against published values and against the libraries that define them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from qtool.evaluate import paired, scale, sequential, statistics, verdict
from qtool.evaluate.metrics import load_metric
from qtool.records.evaluation import ItemResult


def flips(harmful: int, beneficial: int, items: int) -> np.ndarray:
    return np.array([-1.0] * harmful + [1.0] * beneficial + [0.0] * (items - harmful - beneficial))


def test_wilson_at_the_ends_is_never_empty() -> None:
    assert statistics.wilson(0, 10).high == pytest.approx(0.2775, abs=1e-4)  # 1.96^2 / (10 + 1.96^2)
    assert statistics.wilson(10, 10).low == pytest.approx(1 - 0.2775, abs=1e-4)


def test_mcnemar_is_the_exact_binomial() -> None:
    assert statistics.mcnemar_worse(5, 0) == pytest.approx(1 / 32)
    assert statistics.mcnemar_worse(0, 0) == 1.0
    assert statistics.mcnemar_worse(0, 5) == 1.0


def test_holm_as_in_the_textbook() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert statistics.holm([]) == ()


def test_clustered_error_equals_statsmodels_to_twelve_digits() -> None:
    import pandas
    from statsmodels.formula.api import ols

    rng = np.random.default_rng(1)
    groups = rng.integers(0, 12, 200)
    values = rng.normal(size=200) + groups / 5
    data = pandas.DataFrame({"d": values})
    fitted = ols("d ~ 1", data).fit(cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}, use_t=True)
    error, freedom = statistics.standard_error(values, [str(group) for group in groups])
    assert error == pytest.approx(float(fitted.bse.iloc[0]), rel=1e-12)
    assert freedom == 11


def test_items_that_share_a_template_widen_the_bounds() -> None:
    gains = flips(20, 0, 200)
    groups = ["spoilt"] * 20 + [f"fine {index // 20}" for index in range(180)]
    assert verdict.bounds(gains, clusters=groups).low < verdict.bounds(gains).low


def test_permutation_agrees_with_the_exact_count_of_signs() -> None:
    assert statistics.permutation_worse(np.array([-1.0, -0.5, -0.25, 0.0])) == pytest.approx(1 / 8)
    assert statistics.permutation_worse(np.zeros(4)) == 1.0


def test_bca_of_a_skewed_mean_is_shifted_and_absent_where_nothing_varies() -> None:
    gains = flips(3, 0, 100)
    found = statistics.bca(gains)
    assert found is not None
    assert found.low < -0.03 < found.high
    assert statistics.bca(np.zeros(100)) is None


def test_no_flip_at_all_is_not_certainty() -> None:
    assert verdict.decide(verdict.bounds(np.zeros(50)), 0.02) == "UNDECIDED"
    assert verdict.decide(verdict.bounds(np.zeros(2000)), 0.02) == "PASS"


def test_partial_scores_use_the_t_test_with_two_pseudo_items() -> None:
    from statsmodels.stats.weightstats import DescrStatsW

    gains = np.random.default_rng(5).choice([-0.5, 0.0, 0.25], 300, p=[0.05, 0.9, 0.05])
    found = verdict.bounds(gains)
    padded = DescrStatsW(np.r_[gains, 1, -1])
    assert found.low == pytest.approx(padded.tconfint_mean(alpha=0.05, alternative="larger")[0], rel=1e-9)
    assert found.high == pytest.approx(padded.tconfint_mean(alpha=0.05, alternative="smaller")[1], rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(some.integers(0, 30), some.integers(0, 30), some.floats(-0.3, 0.3))
def test_the_score_uses_the_most_likely_chances_under_its_hypothesis(
    harmful: int, beneficial: int, gain: float
) -> None:
    from scipy.optimize import minimize_scalar

    items, least = 200, max(0.0, gain) + 1e-9

    def unlikely(better: float) -> float:
        chances = (better - gain, better, 1 - 2 * better + gain)
        counts = (harmful, beneficial, items - harmful - beneficial)
        return -sum(count * np.log(max(chance, 1e-300)) for count, chance in zip(counts, chances, strict=True))

    best = minimize_scalar(unlikely, bounds=(least, (1 + gain) / 2), method="bounded", options={"xatol": 1e-12}).x
    variance = items * (2 * best - gain - gain**2)
    expected = (beneficial - harmful - items * gain) / np.sqrt(variance)
    assert verdict.score(items, harmful, beneficial, gain) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@settings(deadline=None, max_examples=60)
@given(some.integers(1, 2000), some.integers(0, 60), some.integers(0, 60), some.floats(1e-6, 0.2))
def test_score_bounds_enclose_the_estimate_and_mirror_it(
    rest: int, harmful: int, beneficial: int, level: float
) -> None:
    items = rest + harmful + beneficial
    low, high = verdict.score_bounds(items, harmful, beneficial, level)
    assert -1 <= low <= (beneficial - harmful) / items <= high <= 1
    assert verdict.score_bounds(items, beneficial, harmful, level) == pytest.approx((-high, -low), abs=1e-6)


def test_a_variant_at_the_margin_passes_no_more_often_than_claimed() -> None:
    # all flips harmful: the case in which the t test passes 9 % (benchmarks/verdicts.py has the whole grid)
    rng = np.random.default_rng(0)
    lost, times = np.unique(rng.binomial(200, 0.02, 20_000), return_counts=True)
    passed = sum(
        int(count) for harmful, count in zip(lost.tolist(), times.tolist(), strict=True)
        if verdict.decide(verdict.bounds(flips(harmful, 0, 200)), 0.02) == "PASS"
    )  # fmt: skip
    assert passed / 20_000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 20_000)


def test_the_number_that_would_decide_is_the_tables() -> None:
    # churn 10 %, truly equal, margin 2 points: n = 1,547 at power 80 % (research, section 2)
    gains = flips(500, 500, 10_000)
    found = verdict.bounds(gains)
    assert verdict.items_to_decide(verdict.Bounds(0, 0, found.low, found.high, 0.05, 100, found.spread), 0.02) == (
        pytest.approx(1547, rel=0.01)
    )


def test_a_drop_at_the_margin_itself_has_no_number_that_decides() -> None:
    centered = verdict.Bounds(-0.02, -0.02, -0.03, -0.01, 0.05, 1000, 0.3)
    assert verdict.items_to_decide(centered, 0.02) is None


@settings(deadline=None, max_examples=60)
@given(some.integers(0, 40), some.integers(0, 40), some.floats(0.001, 0.2))
def test_a_larger_margin_never_turns_a_pass_into_something_else(harmful: int, beneficial: int, margin: float) -> None:
    order = {"FAIL": 0, "UNDECIDED": 1, "PASS": 2}
    found = verdict.bounds(flips(harmful, beneficial, 300))
    assert order[verdict.decide(found, margin)] <= order[verdict.decide(found, margin + 0.05)]


def test_boundaries_are_the_published_ones() -> None:
    from scipy.stats import norm

    levels = sequential.look_levels((1, 2, 3, 4), level=0.025, spending=sequential.obrien_fleming)
    assert [float(norm.isf(level)) for level in levels] == pytest.approx([4.333, 2.963, 2.359, 2.014], abs=6e-4)


def test_one_look_spends_everything() -> None:
    assert sequential.look_sizes(500, 500) == (500,)
    assert sequential.look_levels((500,)) == pytest.approx((0.05,))


def test_looking_four_times_passes_a_variant_at_the_margin_no_more_often_than_allowed() -> None:
    sizes = sequential.look_sizes(100, 800)
    levels = sequential.look_levels(sizes)
    rng = np.random.default_rng(3)
    sums = rng.normal(size=(20_000, 800)).cumsum(axis=1)
    from scipy.stats import norm

    stopped = np.zeros(20_000, dtype=bool)
    for size, level in zip(sizes, levels, strict=True):
        stopped |= sums[:, size - 1] / np.sqrt(size) > norm.isf(level)
    assert stopped.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 20_000))


def test_a_difference_at_the_margin_is_not_promised_a_number_of_items() -> None:
    at_margin = np.zeros(2000)
    at_margin[:61] = -1.0  # 3.05 points lost, 3 accepted
    assert verdict.items_to_decide(verdict.bounds(at_margin), 0.03) is None
    clear = np.zeros(200)
    clear[:2] = -1.0
    needed = verdict.items_to_decide(verdict.bounds(clear), 0.03)
    assert needed is not None
    assert 200 < needed <= verdict.MOST_TO_DECIDE


def test_scores_without_spread_keep_an_interval() -> None:
    rows = [
        ItemResult(str(n), "", "", "", "", 1.0, "stop", 1, 1, 1.0, slices=(("subject", str(n % 4)),)) for n in range(40)
    ]
    graded = scale.score_of("json_fields", load_metric("json_fields"), rows)
    assert graded.interval == statistics.wilson(40, 40)
    clustered = scale.score_of("exact", load_metric("exact"), rows, [row.slices[0][1] for row in rows])
    assert clustered.interval == statistics.wilson(4, 4), "four subjects are four trials"


def test_a_single_changed_score_is_half_of_all_sign_patterns() -> None:
    one = np.zeros(50)
    one[7] = -0.25
    assert statistics.permutation_worse(one) == 0.5
    assert statistics.permutation_worse(-one) == 1.0
    two = np.zeros(50)
    two[:2] = -0.25
    assert statistics.permutation_worse(two) == pytest.approx(0.25)  # one of four patterns is as low


def test_a_stricter_level_is_what_the_reason_names_and_needs_more_items() -> None:
    gains = flips(2, 2, 400)
    usual, strict = verdict.bounds(gains), verdict.bounds(gains, level=0.05 / 6)
    assert "with 95 % confidence" in paired.reason("PASS", usual, 0.05, None, None)
    assert "with 99.2 % confidence" in paired.reason("PASS", strict, 0.05, None, None)
    few = flips(20, 20, 400)
    needed = [verdict.items_to_decide(verdict.bounds(few, level=level), 0.02) for level in (0.05, 0.05 / 6)]
    # (z(0.0083) + z(0.2))² over (z(0.05) + z(0.2))²: 1.69
    assert needed[1] / needed[0] == pytest.approx(1.69, rel=0.02)
