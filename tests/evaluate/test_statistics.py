"""Intervals and tests against published values and against the libraries that define them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from qtool.evaluate import advice
from qtool.evaluate.metrics import load_metric
from qtool.evaluate.verdicts import bounded, metric_scale, paired, sequential, statistics, verdict
from qtool.records.evaluation import ItemResult, Look


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


@settings(deadline=None, max_examples=25)
@given(some.integers(10, 2000), some.integers(0, 8), some.floats(0.001, 0.2))
def test_the_bound_of_zeros_and_ones_is_clopper_and_pearsons(items: int, lost: int, level: float) -> None:
    from scipy.stats import beta

    values = np.zeros(items)
    values[:lost] = -1.0
    exact = -float(beta.isf(level, lost + 1, items - lost)) if lost < items else -1.0
    assert bounded.lower_bound(values, floor=-1.0, level=level) == pytest.approx(exact, rel=1e-5, abs=2e-7)
    assert bounded.upper_bound(-values, ceiling=1.0, level=level) == pytest.approx(-exact, rel=1e-5, abs=2e-7)


def test_the_bound_of_other_scores_is_the_quantile_of_their_random_weighting() -> None:
    rng = np.random.default_rng(5)
    gains = rng.choice([-0.5, 0.0, 0.25], 300, p=[0.05, 0.9, 0.05])
    weights = rng.dirichlet(np.ones(301), 100_000)
    low, high = (np.quantile(weights @ np.append(gains, end), at) for end, at in ((-1.0, 0.05), (1.0, 0.95)))
    found = verdict.bounds(gains)
    assert found.low == pytest.approx(low, abs=2e-4)
    assert found.high == pytest.approx(high, abs=2e-4)


def test_large_rare_losses_at_the_margin_pass_no_more_often_than_claimed() -> None:
    # losses of 0.95 at a margin of 5 points: Student's t passes 8.7 % of such samples
    rng = np.random.default_rng(0)
    lost, times = np.unique(rng.binomial(250, 0.05 / 0.95, 20_000), return_counts=True)
    passed = sum(
        int(count) for number, count in zip(lost.tolist(), times.tolist(), strict=True)
        if verdict.decide(verdict.bounds(0.95 * flips(number, 0, 250)), 0.05) == "PASS"
    )  # fmt: skip
    assert passed / 20_000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 20_000)


def test_one_fractional_score_costs_a_task_next_to_nothing() -> None:
    gains = flips(2, 2, 1000)
    gains[-1] = -1e-4
    usual, odd = verdict.bounds(flips(2, 2, 1000)), verdict.bounds(gains)
    assert odd.low == pytest.approx(usual.low, abs=0.001)
    assert verdict.decide(odd, 0.02) == "PASS"


@settings(deadline=None, max_examples=40)
@given(some.integers(0, 30), some.integers(0, 30), some.floats(-0.3, 0.3).filter(lambda gain: abs(gain) > 1e-9))
def test_the_score_uses_the_most_likely_chances_under_its_hypothesis(
    harmful: int, beneficial: int, gain: float
) -> None:
    from scipy.optimize import minimize_scalar

    items, least = 200, max(0.0, gain) + 1e-9

    def unlikely(better: float) -> float:
        chances = (better - gain, better, 1 - 2 * better + gain)
        counts = (harmful, beneficial, items - harmful - beneficial)
        return -float(sum(count * np.log(max(chance, 1e-300)) for count, chance in zip(counts, chances, strict=True)))

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


def test_the_number_that_would_decide_has_the_power_it_promises() -> None:
    rng = np.random.default_rng(0)
    seen = sequential.look((), 200, sequential.Plan())
    undecided = decided = 0
    for harmful, beneficial in rng.multinomial(200, [0.02, 0.02, 0.96], 40)[:, :2].tolist():  # truly equal
        found = verdict.bounds(flips(harmful, beneficial, 200), level=seen[-1].level)
        if verdict.decide(found, 0.03) != "UNDECIDED":
            continue
        items = advice.items_to_decide(found, 0.03, history=seen, level=verdict.LEVEL)
        if items is None:
            continue
        level = sequential.look(seen, items, sequential.Plan(limit=items))[-1].level
        for more, better in rng.multinomial(items - 200, [0.02, 0.02, 0.96], 10)[:, :2].tolist():
            undecided += 1
            later = verdict.bounds(flips(harmful + more, beneficial + better, items), level=level)
            decided += verdict.decide(later, 0.03) != "UNDECIDED"
    assert undecided >= 100
    assert 0.68 <= decided / undecided <= 0.92


def test_a_drop_at_the_margin_itself_has_no_number_that_decides() -> None:
    assert advice.items_to_decide(verdict.bounds(flips(60, 0, 2000)), 0.03) is None


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
    assert advice.items_to_decide(verdict.bounds(at_margin), 0.03) is None
    clear = np.zeros(200)
    clear[:2] = -1.0
    needed = advice.items_to_decide(verdict.bounds(clear), 0.03)
    assert needed is not None
    assert 200 < needed <= advice.MOST_TO_DECIDE


def test_a_run_with_more_items_is_the_next_look_and_all_together_spend_five_percent() -> None:
    plan = sequential.Plan()
    first = sequential.look((), 250, plan)
    assert first[0].level == pytest.approx(0.04)
    assert sequential.look(first, 250, plan) == first, "the same items again are the same look"
    assert sequential.look(first, 100, plan) == first, "fewer of them are no new evidence"
    second = sequential.look(first, 600, plan)
    rest = sequential.look(second, 2000, sequential.Plan(limit=2000))
    assert sum(look.spent for look in rest) == pytest.approx(0.05)
    assert sequential.look(rest, 4000, plan)[-1].level == 0.0
    rng = np.random.default_rng(1)
    sums = rng.normal(size=(40_000, 4)) * np.sqrt([250, 350, 1400, 0])
    sums = sums.cumsum(axis=1)
    from scipy.stats import norm

    stopped = np.zeros(40_000, dtype=bool)
    for index, look in enumerate(rest):
        stopped |= sums[:, index] / np.sqrt(look.items) > norm.isf(look.level)
    assert stopped.mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 40_000))


def test_looks_under_a_stated_limit_are_the_schedule_of_that_limit() -> None:
    sizes = sequential.look_sizes(100, 800)
    history: tuple[Look, ...] = ()
    for size in sizes:
        history = sequential.look(history, size, sequential.Plan(limit=800))
    assert [look.level for look in history] == pytest.approx(list(sequential.look_levels(sizes)), rel=1e-3)


def test_few_clusters_decide_nothing_and_the_reason_says_so() -> None:
    gains = np.zeros(300)
    for count in (1, 2, 9):
        found = verdict.bounds(gains, clusters=[f"c{index % count}" for index in range(300)])
        assert verdict.decide(found, 0.05) == "UNDECIDED"
        assert "fewest that can decide" in paired.reason("UNDECIDED", found, 0.05, None, None)
    assert "one cluster" in verdict.bounds(gains, clusters=["a"] * 300).blocked
    fifty = verdict.bounds(np.zeros(2000), clusters=[f"c{index % 50}" for index in range(2000)])
    assert verdict.decide(fifty, 0.02) == "UNDECIDED", "one cluster in 50 may be lost, and none of those seen"
    assert "149 are the fewest that pass" in paired.reason("UNDECIDED", fifty, 0.02, None, None)
    many = verdict.bounds(flips(3, 3, 2000), clusters=[f"c{index % 250}" for index in range(2000)])
    assert verdict.decide(many, 0.02) == "PASS", "250 clusters of 8 items, 0.3 % of which changed"


@pytest.mark.parametrize(("margin", "count"), [(0.05, 59), (0.02, 149)])
def test_clusters_that_are_lost_as_a_whole_pass_no_more_often_than_claimed(margin: float, count: int) -> None:
    assert verdict.fewest_clusters(margin) == count
    names = [f"c{index // 4}" for index in range(4 * count)]

    def decided(lost: int, clusters: int = count) -> str:
        gains = flips(4 * lost, 0, 4 * clusters)
        return verdict.decide(verdict.bounds(gains, clusters=names[: 4 * clusters]), margin)

    # the chance that none of so many clusters is lost at the margin is just under 5 %, and one lost does not pass
    assert (1 - margin) ** count <= 0.05 < (1 - margin) ** (count - 1)
    assert (decided(0), decided(1), decided(0, count - 1)) == ("PASS", "UNDECIDED", "UNDECIDED")


def test_a_cluster_that_holds_one_item_is_that_item() -> None:
    gains = np.array([-1.0, -0.5, 0.5] * 20 + [0.0] * 140)
    alone = verdict.bounds(gains)
    clustered = verdict.bounds(gains, clusters=[str(n) for n in range(200)])
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high))


def test_a_large_cluster_lost_weighs_as_many_items_as_it_has() -> None:
    names = ["large"] * 50 + [f"c{n}" for n in range(150)]
    gains = np.array([-1.0] * 50 + [0.0] * 150)
    found = verdict.bounds(gains, clusters=names)
    assert found.estimate == -0.25
    assert found.low < verdict.bounds(gains).low
    assert found.high > 0, "another cluster as large may gain as much"


def test_a_slice_that_is_one_cluster_is_judged_by_its_items() -> None:
    rows = [
        ItemResult(str(n), "", "", "", "", 1.0, "stop", 1, 1, 1.0, slices=(("subject", str(n % 12)),))
        for n in range(2400)
    ]
    terms = paired.Terms("exact", load_metric("exact"), 5.0, cluster="subject")
    found = paired.slices(["subject"], rows, rows, terms)
    by_items = verdict.bounds(np.zeros(200))
    assert len(found) == 12
    assert {each.verdict for each in found} == {verdict.decide(by_items, 0.05)} == {"PASS"}
    assert found[0].difference is not None
    assert found[0].difference.low == pytest.approx(by_items.low)


def test_perplexity_of_few_texts_decides_nothing_and_allows_for_heavy_losses_not_seen() -> None:
    def verdict_of(before: list[float], after: list[float]) -> tuple[str, str]:
        old, new = (
            [ItemResult(str(n), "", "", "", "", score, "stop", 100, 0, 1.0) for n, score in enumerate(scores)]
            for scores in (before, after)
        )
        terms = paired.Terms("perplexity", load_metric("perplexity"), 2.0)
        found = paired.compare("base", old, new, terms, seconds_per_item=0.0)
        return found.verdict, found.reason

    assert verdict_of([2.0], [2.0])[0] == "UNDECIDED"
    assert "30 are the fewest" in verdict_of([2.0] * 3, [2.01] * 3)[1]
    assert verdict_of([2.0] * 100, [2.0] * 100)[0] == "UNDECIDED", "one text in 50 could have lost a whole nat"
    assert verdict_of([2.0] * 400, [2.0] * 400)[0] == "PASS"
    assert verdict_of([2.0] * 100, [2.5] * 100)[0] == "FAIL"


def test_scores_without_spread_keep_an_interval() -> None:
    rows = [
        ItemResult(str(n), "", "", "", "", 1.0, "stop", 1, 1, 1.0, slices=(("subject", str(n % 4)),)) for n in range(40)
    ]
    graded = metric_scale.score_of("json_fields", load_metric("json_fields"), rows)
    assert graded.interval == statistics.wilson(40, 40)
    clustered = metric_scale.score_of("exact", load_metric("exact"), rows, [row.slices[0][1] for row in rows])
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
    needed = [advice.items_to_decide(verdict.bounds(few, level=level), 0.02) for level in (0.05, 0.05 / 6)]
    # (z(0.0083) + z(0.2))² over (z(0.05) + z(0.2))² is 1.69; the items seen shift it a little
    assert needed[0] is not None
    assert needed[1] is not None
    assert 1.3 < needed[1] / needed[0] < 1.9
