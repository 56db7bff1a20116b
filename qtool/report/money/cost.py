"""Dollars per million good tokens and per 1,000 answers at each load, and the traffic from which it is worth it."""

from collections.abc import Sequence

from qtool.records.cost import BreakEven, Costs, CostSettings, LoadCost
from qtool.records.latency import LatencyProfile, LoadLevel, MachineState
from qtool.records.report import Report
from qtool.report.money.prices import Prices
from qtool.report.texts.numbers import dollars_text

_HOURS_PER_MONTH = 730.0


def costs(report: Report, settings: CostSettings, prices: Prices) -> Costs | None:
    """What each timed variant costs at each load; None where nothing was timed or no price is known of the machine."""
    profiles = [row.latency for row in report.rows if row.latency is not None and row.latency.levels]
    profiles = [profile for profile in profiles if not profile.simulated]  # a simulation's time says nothing of cost
    if not profiles:
        return None
    machine = profiles[0].machine
    name = settings.machine or prices.like(machine)
    if name is None and settings.dollars_per_hour is None:
        return None
    units = machine.threads if name is not None and "cpu" in prices.machine(name).matches else 1
    hourly = settings.dollars_per_hour
    if hourly is None:
        hourly = prices.machine(str(name)).dollars_per_hour * units
    memory = settings.memory_gb
    if memory is None:
        memory = prices.machine(name).memory_gb * units if name is not None else 0.0
    loads = tuple(_load_cost(profile.variant, level, hourly) for profile in profiles for level in profile.levels)
    even = tuple(_break_even(profile, loads, hourly, settings, prices) for profile in profiles)
    said = _assumptions(settings, prices, machine, name, hourly, units, loads)
    return Costs(name or "your machine", hourly, memory, loads, even, said)


def _load_cost(variant: str, level: LoadLevel, hourly: float) -> LoadCost:
    measured = level.goodput_per_second is not None
    answers = level.goodput_per_second if level.goodput_per_second is not None else level.requests_per_second
    share = answers / level.requests_per_second if level.requests_per_second else 0.0
    tokens = level.output_tokens_per_second * share
    return LoadCost(
        variant=variant,
        concurrency=level.concurrency,
        rate_per_second=level.rate_per_second,
        good_tokens_per_second=tokens,
        good_answers_per_second=answers,
        goodput_measured=measured,
        dollars_per_million_tokens=hourly / (3600 * tokens) * 1e6 if tokens else None,
        dollars_per_thousand_answers=hourly / (3600 * answers) * 1000 if answers else None,
    )


def _break_even(
    profile: LatencyProfile, loads: Sequence[LoadCost], hourly: float, settings: CostSettings, prices: Prices
) -> BreakEven:
    level = profile.levels[0]
    answers = max(load.good_answers_per_second for load in loads if load.variant == profile.variant)
    capacity = answers * 3600 * _HOURS_PER_MONTH
    own = hourly * _HOURS_PER_MONTH + _monthly(settings)
    asked, answered = _api(settings, prices)
    each = (level.prompt_tokens * asked + level.output_tokens * answered) / 1e6
    needed = own / each if each else None
    return BreakEven(
        variant=profile.variant,
        answers_per_month=needed if needed is not None and needed <= capacity else None,
        capacity=capacity,
        own_dollars_per_month=own,
        api_dollars_per_thousand_answers=1000 * each,
    )


def _monthly(settings: CostSettings) -> float:
    return settings.on_call_dollars_per_month + settings.storage_dollars_per_month + settings.egress_dollars_per_month


def _api(settings: CostSettings, prices: Prices) -> tuple[float, float]:
    asked, answered = settings.api_input_dollars, settings.api_output_dollars
    return (
        prices.api.input_dollars if asked is None else asked,
        prices.api.output_dollars if answered is None else answered,
    )


def _assumptions(
    settings: CostSettings,
    prices: Prices,
    machine: MachineState,
    name: str | None,
    hourly: float,
    units: int,
    loads: Sequence[LoadCost],
) -> tuple[tuple[str, str], ...]:
    asked, answered = _api(settings, prices)
    given = "from the plan" if settings.dollars_per_hour is not None else f"price table, row {name}"
    many = f", {units} cores" if units > 1 else ""
    goodput = all(load.goodput_measured for load in loads)
    return (
        ("machine", f"{dollars_text(hourly)} an hour ({given}{many}); timed on {machine.hardware}"),
        ("hours", f"{_HOURS_PER_MONTH:.0f} a month, all of them paid"),
        ("good answers", "those within the goodput limits" if goodput else "all of them: no goodput was measured"),
        ("API", f"{dollars_text(asked)} and {dollars_text(answered)} per million tokens in and out"),
        ("a month beside the machine", f"{dollars_text(_monthly(settings))} for on-call, storage and egress"),
    )
