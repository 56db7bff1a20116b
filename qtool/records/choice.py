"""What `qtool choose` finds: every variant against a user's limits at a user's load."""

from dataclasses import dataclass

from qtool.records.cost import BreakEven, LoadCost
from qtool.records.evaluation import VerdictName


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant must keep. `drops` are (task, accepted points); other critical tasks keep the run's margin.

    `load` is how many requests are in flight; None the highest that was timed. `context_tokens` and `card_bytes` say
    how many instances a card of that size holds.
    """

    load: int | None = None
    memory_bytes: int | None = None
    ttft_ms_p95: float | None = None
    e2e_ms_p95: float | None = None
    dollars_per_million_tokens: float | None = None
    drops: tuple[tuple[str, float], ...] = ()
    card_bytes: int | None = None
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """One limit of one variant: PASS or FAIL where the bounds say so, else UNDECIDED with the command that decides."""

    limit: str
    verdict: VerdictName
    reason: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One variant, its checks folded into `verdict`; cost and instances at the load, None where not known."""

    variant: str
    verdict: VerdictName
    checks: tuple[LimitCheck, ...]
    tokens_per_second: float | None
    cost: LoadCost | None
    break_even: BreakEven | None
    instance_bytes: int | None
    instances: int | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The recommended variant and the next one, among those that keep every limit with confidence."""

    run: str
    load: int | None
    verdict: VerdictName
    recommended: str | None
    runner_up: str | None
    reason: str
    candidates: tuple[Candidate, ...]
    assumptions: tuple[tuple[str, str], ...]
