"""The serving-ready artifact's manifest: what is in it, how it must behave, how it scored."""

from dataclasses import dataclass
from typing import ClassVar

from qtool.records.presentation import Presented
from qtool.records.report import ReportRow
from qtool.records.variant import Variant


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file of the bundle with its size and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class GoldenPrompt:
    """A prompt and what this artifact's own kernels must give for it.

    `top_ids` and `top_logprobs` are the five most likely next tokens after the prompt; `greedy_ids` the first greedy
    tokens. A machine reproduces the artifact if each log-probability is within `tolerance` (nats).
    """

    ids: tuple[int, ...]
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]
    greedy_ids: tuple[int, ...]
    tolerance: float


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """What `serve` uses unless told otherwise; each value was derived from what was measured."""

    dtype: str
    context_tokens: int
    max_batch: int
    max_queue: int
    memory_bytes: int
    cold_start_seconds: float
    e2e_ms_p99: float | None


@dataclass(frozen=True, slots=True, repr=False)
class Bundle(Presented):
    """The manifest `bundle.json`; a server refuses the folder when a listed file's digest differs.

    `chosen` says why this variant: recommended by the report, or named by a person although something spoke against it.
    """

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "variant.name", "chosen")

    format_version: int
    name: str
    variant: Variant
    files: tuple[BundleFile, ...]
    golden: tuple[GoldenPrompt, ...]
    runtime: RuntimeSettings
    report_row: ReportRow | None
    qtool_version: str
    chosen: str = ""
