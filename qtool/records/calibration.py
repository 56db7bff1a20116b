"""What `calibrate` hands to `quantize`, to the report and to the server: ranges and where they came from."""

from dataclasses import dataclass
from typing import ClassVar

from qtool.records.certificate import CalibrationVerdict, Certificate
from qtool.records.model import ModelIdentity
from qtool.records.presentation import Presented


@dataclass(frozen=True, slots=True)
class SourceCount:
    """How many rows of one tagged source were read, used, and left out, and why."""

    tag: str
    read: int
    used: int
    dropped_empty: int
    dropped_short: int
    dropped_duplicate: int
    cut_to_length: int


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Range of one linear layer's input as one observer sees it: `low` <= every kept value <= `high`.

    `clipped_share` is the share of observed values outside the range (a fraction); `dynamic` observers (per token) have
    no fixed range and carry the absolute maximum for information.
    """

    layer: str
    observer: str
    low: float
    high: float
    clipped_share: float
    values: int
    tokens: int
    nonfinite: int
    dynamic: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Calibration(Presented):
    """The manifest `calibration.json` of a finished calibration folder.

    `sequences` rows of `tokens` tokens in all made the ranges, `held_out_sequences` more only checked them;
    `set_digest` identifies the rows actually used after tokenization. `streamed` says whether one block at a time was
    in memory, `chat` whether rows of the set were shown as turns of the model's chat template.
    """

    SHOWN: ClassVar[tuple[str, ...]] = ("model.name", "set_name", "sequences", "tokens", "verdict")

    format_version: int
    model: ModelIdentity
    set_name: str
    set_digest: str
    seed: int
    sequence_tokens: int
    sequences: int
    tokens: int
    packed: bool
    sources: tuple[SourceCount, ...]
    observers: tuple[str, ...]
    ranges: tuple[LayerRange, ...]
    qtool_version: str
    seconds: float
    verdict: CalibrationVerdict = "not_assessed"
    verdict_reason: str = ""
    held_out_sequences: int = 0
    dtype: str = "float32"
    streamed: bool = True
    certificate: Certificate | None = None
    chat: bool = False
