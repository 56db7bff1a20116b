"""What a user asks of `qtool run`: the decoded `plan.toml`."""

from dataclasses import dataclass, field
from typing import Literal

from qtool.records.cost import CostSettings
from qtool.records.task import Tier
from qtool.records.variant import Recipe


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """One `[variants.<name>]` table: a name and the recipe it stands for.

    With `until` = "pass" it stands for a ladder of recipes instead: at most `tries` of them, each with more layers in
    more bits, are made and evaluated in order of size until one passes every critical task.
    """

    name: str
    recipe: Recipe
    until: Literal["pass"] | None = None
    tries: int = 6


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One `[[tasks]]` table; unset values come from the task file."""

    name: str
    margin_points: float | None = None
    items: int | None = None
    critical: bool | None = None
    data: str | None = None
    tier: Tier | None = None
    margin_percent: float | None = None
    base_score: float | None = None
    repeats: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """`[calibration]`: which set, how much of it, and which observers turn statistics into ranges.

    `traffic` names a second set, of text the model will meet: it makes no range and only checks them. `outputs` are
    patterns of layers, such as `*.k_proj`, whose outputs are calibrated too, as layers called `<layer>.output`. `chat`
    false shows plain text to a model that has a chat template.
    """

    set: str = "mixed"
    sequences: int = 128
    sequence_tokens: int = 256
    seed: int = 0
    observers: tuple[str, ...] = ("absmax", "percentile")
    traffic: str | None = None
    outputs: tuple[str, ...] = ()
    chat: bool | None = None


@dataclass(frozen=True, slots=True)
class LatencySettings:
    """`[latency]`: requests timed at each level of concurrency, prompt and output lengths in tokens."""

    concurrency: tuple[int, ...] = (1, 8)
    requests: int = 24
    prompt_tokens: int = 64
    output_tokens: int = 32


@dataclass(frozen=True, slots=True)
class Budget:
    """`[budget]`: limits a variant must keep to be recommended; None is no limit."""

    memory_bytes: int | None = None
    e2e_ms_p95: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole of `plan.toml`. The baseline is a variant too and is added by the pipeline, never listed.

    `evals_dir` and `sets_dir` add folders of task files and calibration sets to the shipped ones. `chat` is None where
    tasks are asked through the model's chat template if it has one.
    """

    base: str
    name: str
    variants: tuple[PlannedVariant, ...]
    tasks: tuple[PlannedTask, ...]
    calibration: CalibrationSettings = CalibrationSettings()
    latency: LatencySettings = LatencySettings()
    budget: Budget = Budget()
    cost: CostSettings = field(default_factory=CostSettings)
    seed: int = 0
    dtype: str = "auto"
    evals_dir: str | None = None
    sets_dir: str | None = None
    chat: bool | None = None
