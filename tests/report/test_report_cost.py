"""Costs, from the measured throughput and an hourly price; every assumption can be another one."""

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import PLAN, latency, write_run

from qtool.errors import PlanError, UnknownName
from qtool.records.cost import CostSettings
from qtool.records.latency import MachineState
from qtool.records.report import Report
from qtool.report.join import join
from qtool.report.money.cost import costs
from qtool.report.money.fit import footprint, instances
from qtool.report.money.prices import read_prices
from qtool.report.stage import judge


@pytest.fixture
def found(tmp_path: Path) -> Report:
    return judge(join(write_run(tmp_path / "demo")), name="demo", command="c")


def test_dollars_follow_from_price_and_throughput(found: Report) -> None:
    made = costs(found, CostSettings(dollars_per_hour=3.6), read_prices())
    assert made is not None
    load = next(load for load in made.loads if load.variant == "baseline" and load.concurrency == 1)
    level = found.rows[0].latency.levels[0]  # type: ignore[union-attr]
    assert load.dollars_per_million_tokens == pytest.approx(0.001 / level.output_tokens_per_second * 1e6)
    assert load.dollars_per_thousand_answers == pytest.approx(0.001 / level.requests_per_second * 1000)
    assert not load.goodput_measured


def test_only_good_answers_count_where_goodput_was_measured(found: Report) -> None:
    profile = latency("w8a16", 10.9)
    levels = tuple(replace(level, goodput_per_second=level.requests_per_second / 4) for level in profile.levels)
    rows = tuple(
        replace(row, latency=replace(profile, levels=levels)) if row.variant.name == "w8a16" else row
        for row in found.rows
    )
    plain = costs(found, CostSettings(), read_prices())
    made = costs(replace(found, rows=rows), CostSettings(), read_prices())
    assert plain is not None
    assert made is not None
    pairs = [
        (new.dollars_per_million_tokens, old.dollars_per_million_tokens)
        for new, old in zip(made.loads, plain.loads, strict=True)
        if new.variant == "w8a16"
    ]
    assert all(new == pytest.approx(4 * old) for new, old in pairs if new is not None and old is not None)
    none_good = tuple(replace(level, goodput_per_second=0.0) for level in profile.levels)
    rows = tuple(replace(row, latency=replace(profile, levels=none_good)) for row in found.rows[:1])
    bad = costs(replace(found, rows=rows), CostSettings(), read_prices())
    assert bad is not None
    assert bad.loads[0].dollars_per_million_tokens is None


def test_break_even_counts_what_runs_beside_the_machine(found: Report) -> None:
    settings = CostSettings(dollars_per_hour=1.0, on_call_dollars_per_month=270.0, api_input_dollars=0.0,
                            api_output_dollars=10.0)  # fmt: skip
    made = costs(found, settings, read_prices())
    assert made is not None
    even = made.break_even[0]
    assert even.own_dollars_per_month == pytest.approx(730 + 270)
    assert even.answers_per_month == pytest.approx(1000 / (32 * 10 / 1e6))
    dear = costs(found, replace(settings, api_output_dollars=1e-6), read_prices())
    assert dear is not None
    assert dear.break_even[0].answers_per_month is None, "one machine cannot answer that many"


def test_the_plan_sets_the_price_and_the_assumptions_are_told(tmp_path: Path) -> None:
    plan = replace(PLAN, cost=CostSettings(machine="l4"))
    found = judge(join(write_run(tmp_path / "demo", plan=plan)), name="demo", command="c")
    assert found.costs is not None
    assert found.costs.dollars_per_hour == read_prices().machine("l4").dollars_per_hour
    assert "price table, row l4" in dict(found.costs.assumptions)["machine"]


def test_no_cost_is_made_up(found: Report) -> None:
    untimed = replace(found, rows=tuple(replace(row, latency=None) for row in found.rows))
    assert costs(untimed, CostSettings(), read_prices()) is None
    simulated = tuple(
        replace(row, latency=replace(row.latency, simulated=True) if row.latency else None) for row in found.rows
    )
    assert costs(replace(found, rows=simulated), CostSettings(), read_prices()) is None


def test_a_card_is_known_by_its_name_and_an_unknown_one_is_not_guessed() -> None:
    card = MachineState("NVIDIA H200", "cuda:0", 1, "2.13.0", 0.0, 0.0)
    assert read_prices().like(card) == "h200"
    assert read_prices().like(replace(card, hardware="Some New Card")) is None
    with pytest.raises(UnknownName, match="h200"):
        read_prices().machine("h2oo")


def test_a_table_of_ones_own_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        "[machines.mine]\ndollars_per_hour = 0\nmemory_gb = 8\n[api]\ninput_dollars = 1\noutput_dollars = 2\n"
    )
    with pytest.raises(PlanError, match=r"machines\.mine\.dollars_per_hour: 0\.0 is not above 0"):
        read_prices(path)


def test_instances_fit_by_weights_and_cache() -> None:
    profile = replace(latency("v", 10.0, size=3_000_000_000), cache_bytes=1_000_000_000)
    assert footprint(profile).bytes == 4_000_000_000
    assert instances(profile, 24e9) == 5  # 90 % of 24 GB
    assert instances(replace(profile, peak_gpu_bytes=11_000_000_000), 24e9) == 1, "a card's own peak is the truth"
