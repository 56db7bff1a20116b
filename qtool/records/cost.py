"""What an answer costs: the assumptions, and what follows from them and from what was measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CostSettings:
    """`[cost]` of a plan: what the shipped price table does not know of you. None takes the table's value.

    `machine` names a row of the price table (default: the one that matches the machine that was timed). Monthly costs
    are those of running it yourself beside the machine; API prices are dollars per million tokens.
    """

    machine: str | None = None
    dollars_per_hour: float | None = None
    memory_gb: float | None = None
    api_input_dollars: float | None = None
    api_output_dollars: float | None = None
    on_call_dollars_per_month: float = 0.0
    storage_dollars_per_month: float = 0.0
    egress_dollars_per_month: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadCost:
    """One variant at one load. `good_tokens_per_second` counts the tokens of answers within the goodput limits, where
    they were counted: `goodput_measured`; else all of them."""

    variant: str
    concurrency: int
    rate_per_second: float | None
    good_tokens_per_second: float
    good_answers_per_second: float
    goodput_measured: bool
    dollars_per_million_tokens: float | None
    dollars_per_thousand_answers: float | None


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Answers a month from which one machine of one's own is cheaper than the API; None where it never is.

    `capacity` is what one machine answers in a month at the load with most good answers.
    """

    variant: str
    answers_per_month: float | None
    capacity: float
    own_dollars_per_month: float
    api_dollars_per_thousand_answers: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of every variant that was timed, and each assumption as (what, value) in words."""

    machine: str
    dollars_per_hour: float
    memory_gb: float
    loads: tuple[LoadCost, ...]
    break_even: tuple[BreakEven, ...]
    assumptions: tuple[tuple[str, str], ...]
