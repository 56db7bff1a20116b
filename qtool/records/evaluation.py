"""What `eval` finds: one score, one paired comparison and one verdict for each (variant, task)."""

from dataclasses import dataclass
from typing import Literal

from qtool.records.task import Tier

VerdictName = Literal["PASS", "FAIL", "UNDECIDED"]
# of a metric's values: shares of 1, or mean nats a token, whose exponential is the score
Unit = Literal["fraction", "perplexity"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval at level `confidence` (0.95 unless said)."""

    low: float
    high: float
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Score:
    """Mean of a metric over `items` items, in the metric's `unit`; None where an older version wrote the file."""

    metric: str
    value: float
    interval: Interval
    items: int
    unit: Unit | None = None

    @property
    def is_fraction(self) -> bool:
        """Whether the value is shown as percent. Before units were stored there was one metric that is not."""
        return self.unit == "fraction" if self.unit is not None else self.metric != "perplexity"


@dataclass(frozen=True, slots=True)
class SliceScore:
    """Score of one slice of a task, such as operation = addition, beside the baseline's on the same items."""

    slice: str
    value: str
    score: Score
    baseline: Score | None
    difference: Interval | None
    verdict: VerdictName | None


@dataclass(frozen=True, slots=True)
class Churn:
    """Items whose answer changed against the baseline; `floor` is the same for baseline against itself, its share
    between the bounds of `floor_interval`.

    `harmful` right to wrong, `beneficial` wrong to right, `wrong_to_other_wrong` both wrong with other answers.
    """

    items: int
    harmful: int
    beneficial: int
    wrong_to_other_wrong: int
    floor_changed: int | None
    floor_items: int | None
    floor_interval: Interval | None = None

    @property
    def changed_share(self) -> float:
        """Share of items whose answer changed, in whichever way."""
        return (self.harmful + self.beneficial + self.wrong_to_other_wrong) / max(1, self.items)

    def multiple_of_floor(self) -> tuple[float | None, float] | None:
        """(churn over floor, churn over the floor's upper bound): the first is None where the floor showed no change,
        the second is what the churn is at least. None where no floor was measured."""
        if self.floor_changed is None or not self.floor_items or self.floor_interval is None:
            return None
        share = self.floor_changed / self.floor_items
        return (self.changed_share / share if share else None, self.changed_share / self.floor_interval.high)


@dataclass(frozen=True, slots=True)
class Look:
    """One look of the ship test: after `items` items, at one-sided `level`, which spent so much of the whole error."""

    items: int
    level: float
    spent: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Paired difference variant minus baseline, in the metric's own unit, and the ship test on it.

    `margin` is in the same unit (points / 100 for fractions); `items_to_decide` is the sample that would decide.
    `base_fails` says that the base cannot do the task, so that no number of items would decide it. `history` are the
    looks at growing numbers of items, this one last; `baseline_digest` stands for the baseline's answers, since looks
    at other answers do not count.
    """

    baseline: str
    difference: float
    interval: Interval
    margin: float
    verdict: VerdictName
    reason: str
    p_worse: float
    items_to_decide: int | None
    bootstrap: Interval | None = None
    clusters: int | None = None
    looks: int = 1
    minutes_to_decide: float | None = None
    base_fails: bool = False
    history: tuple[Look, ...] = ()
    baseline_digest: str = ""


@dataclass(frozen=True, slots=True)
class Pooled:
    """Mean difference over tasks, each counting alike, with flips over all their items and the one-sided p-value that
    more got worse than better. It finds losses too small for one task and never decides shipping."""

    tasks: int
    items: int
    difference: float
    interval: Interval
    harmful: int
    beneficial: int
    p_worse: float


@dataclass(frozen=True, slots=True)
class AnswerFaults:
    """Answers that failed for reasons other than being wrong: counted apart so that a broken prompt shows.

    `prompt_cut` counts questions whose beginning was left out because the model's context is too short for them,
    `unanswered` answers in which the model never came out of its thinking.
    """

    empty: int
    truncated: int
    looping: int
    unparsable: int
    prompt_cut: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class TaskTiming:
    """Wall time per item while evaluating, in milliseconds, and generated tokens a second over the whole run.

    A quantile is None where too few items were timed for it. `answer_seconds` is the mean time to a whole answer over
    the generated ones, with as many others at once as were asked; None where none was generated.
    """

    item_ms_p50: float | None
    item_ms_p95: float | None
    seconds: float
    output_tokens: int
    tokens_per_second: float
    answer_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """How long the answers are beside the baseline's, in tokens an answer over the same `items`.

    `ratio` is the variant's mean over the baseline's, with a paired 95 % interval; the counts are of answers that ran
    into the limit or in circles.
    """

    items: int
    tokens: float
    baseline_tokens: float
    ratio: float
    interval: Interval
    at_limit: int
    baseline_at_limit: int
    looping: int
    baseline_looping: int


@dataclass(frozen=True, slots=True)
class Asking:
    """How the questions were put, as far as it can change an answer: `template` is the digest of the chat template (of
    what it makes of one message), empty with plain prompts; limits in tokens; `server` what a server says of its
    software.

    `server_template` says whether the server's own chat template makes the same tokens of that message: "same",
    "other", or "not told" where it has no /tokenize; empty where no server or no template is asked.
    """

    template: str
    max_new_tokens: int
    temperature: float
    context_tokens: int | None
    server: str = ""
    server_template: Literal["", "same", "other", "not told"] = ""

    def differences(self, other: "Asking") -> tuple[str, ...]:
        """In which points `other` was asked in another way, in words; what one side does not tell is no difference."""
        found = []
        if self.template != other.template:
            found.append("chat template")
        for name, mine, theirs in (
            ("limit of an answer", self.max_new_tokens, other.max_new_tokens),
            ("temperature", self.temperature, other.temperature),
            ("context", self.context_tokens, other.context_tokens),
            ("server version", self.server or None, other.server or None),
        ):
            if mine is not None and theirs is not None and mine != theirs:
                found.append(f"{name} ({theirs} and {mine})")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Counts of items by one property, such as the digit position of the first wrong digit."""

    name: str
    counts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Forecast:
    """Share of items expected to change their answer, foretold without the variant's answers, beside what was measured.

    `noise_nats` is the root mean square change of a margin that is expected; `margin_p05_nats` the 5th percentile over
    items of the smallest margin in an answer; `measured` is None until a variant has been compared, and
    `measured_noise_nats` is then the noise its margins really showed. `interval` allows for the few items on which the
    noise was measured and for the luck of the items asked, not for the forecast's own assumptions; `weight_error` is
    the relative change of the weights that the forecast is for.
    """

    noise_nats: float
    margin_p05_nats: float
    predicted: float
    measured: float | None
    items: int
    measured_noise_nats: float | None = None
    interval: Interval | None = None
    weight_error: float | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike baseline and variant predict the next token; it ranks damage and never decides shipping.

    `kl_nats` is KL(baseline || variant) a token over `kl_tokens` tokens sampled from the baseline, None where none
    were; `kl_p99_nats` and `kl_p999_nats` are percentiles of its terms, None where fewer than ten would lie beyond.
    `expected_acceptance` is the sum of min(p, q) over the vocabulary, averaged: the share of the baseline's tokens that
    the variant would accept as a draft model's verifier does. `top1_share` is the share of `top1_tokens` places, up to
    where two answers part, at which both prefer the same token. `lead_lost_share` weighs these places by the baseline's
    lead: a token that was lost where the baseline was sure counts for more than one lost at a near tie. The same for
    the `digit_tokens` that are digits or operators, where arithmetic breaks.
    """

    kl_nats: float | None
    kl_interval: Interval | None
    kl_tokens: int
    top1_share: float | None
    top1_tokens: int
    kl_p99_nats: float | None = None
    kl_p999_nats: float | None = None
    expected_acceptance: float | None = None
    acceptance_interval: Interval | None = None
    lead_lost_share: float | None = None
    digit_top1_share: float | None = None
    digit_lead_lost_share: float | None = None
    digit_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Parting:
    """How many of `items` answers are the baseline's token by token, and where the first other one parts from it: at
    `token` of `item`, counted from 0, with the texts from there on; None where none does."""

    items: int
    same: int
    item: str | None = None
    token: int | None = None
    baseline_text: str = ""
    variant_text: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The manifest `<task>.json` beside `<task>.items.jsonl` in `evaluations/<variant>/`.

    `decided` items were not generated, since one pass over prompt and expected answer told that they would be right;
    the quantiles of `timing` are then those of the others. `chat` says that the questions went through the model's chat
    template, `also` are scores under other metrics (acc and acc_norm of a choice), `chance` which score guessing among
    the choices gives. `base_digest` is that of the weights of the base model that answered or that the variant was made
    from; empty where that is not known (a server, a checkpoint of others). `tier` is what the task weighs in the ship
    rule, and `critical` whether it must pass; None where an older version wrote the file. `cluster` is the slice whose
    items count together, `asked` is how the questions were put and `unlike_baseline` in what the baseline was asked
    otherwise, `margin_percent` the margin as a share of the base's score where it
    was given so. `dtype` is what the engine computed in.
    """

    format_version: int
    variant: str
    variant_digest: str
    task: str
    task_version: int
    task_digest: str
    items_digest: str
    score: Score
    comparison: Comparison | None
    churn: Churn | None
    slices: tuple[SliceScore, ...]
    faults: AnswerFaults
    timing: TaskTiming
    engine: str
    seed: int
    qtool_version: str
    tokenizer_digest: str = ""
    run_digest: str = ""
    margin_points: float | None = None
    breakdowns: tuple[Breakdown, ...] = ()
    forecast: Forecast | None = None
    agreement: Agreement | None = None
    decided: int = 0
    chat: bool = False
    chance: float | None = None
    also: tuple[Score, ...] = ()
    base_digest: str = ""
    critical: bool | None = None
    dtype: str = ""
    parting: Parting | None = None
    server: str = ""
    cluster: str | None = None
    tier: Tier | None = None
    margin_percent: float | None = None
    repeats: int = 1
    length: AnswerLength | None = None
    asked: Asking | None = None
    unlike_baseline: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One line of `items.jsonl`: what was asked, what was answered, how it scored.

    `margins` are nats by which each generated token beat the best other one; `run_digest` stands for model, task and
    settings, `prompt_digest` for what this item put to the model: a line is used again only where both are equal.
    `weight` is how many rows of the data said the same, `also` the item's value under other metrics. `decided_by` is
    empty for a generated answer; "teacher forcing" for one known from a single pass over prompt and expected answer,
    whose `latency_ms` is its share of that pass and no latency that a user would see.
    """

    id: str
    prompt: str
    output: str
    extracted: str
    target: str
    score: float
    finish: str
    prompt_tokens: int
    output_tokens: int
    latency_ms: float
    slices: tuple[tuple[str, str], ...] = ()
    output_logprob: float | None = None
    output_ids: tuple[int, ...] = ()
    margins: tuple[float, ...] = ()
    fault: str = ""
    notes: tuple[tuple[str, str], ...] = ()
    prompt_digest: str = ""
    run_digest: str = ""
    decided_by: str = ""
    weight: int = 1
    also: tuple[tuple[str, float], ...] = ()
