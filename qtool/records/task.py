"""What a task is and what one of its items is: versioned data, no behaviour."""

from dataclasses import dataclass, field
from typing import Literal

Tier = Literal["critical", "supporting", "advisory"]
"""What a task weighs in the ship rule: `critical` must pass, `supporting` must not fail, `advisory` is only shown."""


REPEATED = "item"
"""The slice that says to which item a repeated answer belongs."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its known answer.

    `id` is unique in its task and stable across runs; `fields` fill the prompt template; `answer` is the reference
    completion (what a perfect model writes after the prompt, scratchpad included); `target` is what the metric
    compares with the extracted answer; `slices` are (slice name, value) pairs such as ("operation", "add"); `weight` is
    how many rows said the same, `accepts` are answers as right as the target, such as other spellings.
    """

    id: str
    fields: tuple[tuple[str, str], ...]
    answer: str
    target: str
    slices: tuple[tuple[str, str], ...] = ()
    choices: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    weight: int = 1
    accepts: tuple[str, ...] = ()

    def field(self, name: str) -> str:
        """The text that fills `{name}` in the prompt template."""
        return dict(self.fields)[name]


@dataclass(frozen=True, slots=True)
class HubSource:
    """A public set: repository, pinned revision, configuration and split on the hub."""

    repository: str
    revision: str
    split: str
    config: str | None = None


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One file of `evals/`, decoded: where the items come from, how they are asked, and how answers are scored.

    `margin_points` is the drop, in points of 0-100, that the task's author accepts; a plan may override it.
    `extract` names how the compared answer is read out of the completion (`last_number` is the older name of `number`).
    Items come from a `generator`, from `data` (a JSONL, CSV or text file, beside the task file if relative) or from
    `hub`; `reader` turns rows into items. `cluster` names the slice whose items share a template and are therefore not
    independent. Answers are greedy unless `temperature` is above 0; they are then drawn with the run's seed. Through a
    chat template `chat_prompt` is asked (`prompt` where there is none), with `chat_max_new_tokens` and `chat_stop`
    instead of the plain prompt's limits; `chat_turns` are several turns instead of one, of user and assistant by turns.
    `length_slice` names the slice that says how long an item is: lengths beyond the model's context are left out.
    `margin_percent` is the accepted drop as a share of the base's score, instead of points; a base whose score is far
    from `base_score` (a fraction) gets no verdict. Every item is asked `repeats` times.
    """

    name: str
    version: int
    description: str
    licence: str
    prompt: str
    scorer: str
    metric: str
    extract: Literal["text", "first_line", "number", "last_number", "words", "json", "code", "letter"]
    margin_points: float
    items: int
    seed: int
    max_new_tokens: int
    generator: str | None = None
    data: str | None = None
    stop: tuple[str, ...] = ("\nQuestion:",)
    slices: tuple[str, ...] = ()
    critical: bool = True
    golden_first_prompt: str | None = None
    chat_prompt: str | None = None
    few_shot: int = 0
    few_shot_data: str | None = None
    cluster: str | None = None
    reader: str = "rows"
    hub: HubSource | None = None
    metric_options: dict[str, float | str] = field(default_factory=dict)
    temperature: float = 0.0
    chat_max_new_tokens: int | None = None
    chat_stop: tuple[str, ...] = ()
    chat_turns: tuple[str, ...] = ()
    length_slice: str | None = None
    tier: Tier | None = None
    margin_percent: float | None = None
    base_score: float | None = None
    repeats: int = 1

    @property
    def weight(self) -> Tier:
        """The task's tier: `critical = false` is the older name of "advisory"."""
        return self.tier or ("critical" if self.critical else "advisory")

    @property
    def together(self) -> str | None:
        """The slice whose items are not independent: answers to one item are not, however often it is asked."""
        return self.cluster or (REPEATED if self.repeats > 1 else None)
