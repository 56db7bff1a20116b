"""What a calibration proves of its data: whether ranges have converged, hold on unseen text, and for which traffic."""

from dataclasses import dataclass
from typing import Literal

CalibrationVerdict = Literal["enough", "more_samples", "wrong_mix", "not_assessed"]
RANGE_TOLERANCE = 0.02  # a range 2 % off changes the rounding noise of all values by 0.17 dB


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The range as it was after `sequences` rows."""

    sequences: int
    high: float


@dataclass(frozen=True, slots=True)
class HeldOutClip:
    """What a range cuts off the held-out rows of one tag: shares of values and of energy, fractions."""

    tag: str
    values: int
    clipped_share: float
    clipped_energy: float


@dataclass(frozen=True, slots=True)
class RangeCertificate:
    """How well the data determine one range of one input.

    `interval_low` to `interval_high` is a 95 % bootstrap interval of the range, rows resampled within their tags;
    `split_half_ratio` the range of one half of the rows over that of the other; `nominal_share` the share of values
    the observer means to clip, None where it names none.
    """

    observer: str
    high: float
    interval_low: float
    interval_high: float
    split_half_ratio: float
    last_doubling_change: float
    curve: tuple[CurvePoint, ...]
    nominal_share: float | None
    held_out: tuple[HeldOutClip, ...]
    converged: bool


@dataclass(frozen=True, slots=True)
class LayerCertificate:
    """The data's verdict on one linear input; `layers` are those that read it.

    `tail_index` is Hill's estimate: the maximum of n values grows as n to the power 1/tail_index. `effective_rank` is
    the participation ratio of the uncentred second moment, between 1 and `columns`. Of `lost_tags` some range cuts off
    more held-out energy than it may.
    """

    input: str
    layers: tuple[str, ...]
    columns: int
    tokens: int
    ranges: tuple[RangeCertificate, ...]
    tail_index: float | None
    effective_rank: float | None
    dead_channels: int
    outlier_channels: tuple[int, ...]
    verdict: CalibrationVerdict
    reason: str
    needed_sequences: int | None = None
    lost_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TagCertificate:
    """How well the ranges cover one kind of traffic, judged on rows of it that made no range.

    `score` is the share of input channels, averaged over the inputs, whose held-out extremes lie inside what
    calibration saw of that channel; `worst_clipped_energy` the most any range cuts off in any input. `distance` says
    how far off the tags `nearest` in the mix the traffic lies, of the squared spread between rows (about 0 where it is
    like them), `p_value` how often random splits of both lie as far apart; None where there are too few rows to say.
    """

    tag: str
    sequences: int
    held_out_sequences: int
    held_out_tokens: int
    score: float
    worst_clipped_share: float
    worst_clipped_energy: float
    worst_input: str
    verdict: CalibrationVerdict
    reason: str
    distance: float | None = None
    p_value: float | None = None
    nearest: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpertTokens:
    """Tokens that one expert of a mixture was given, where they are too few to calibrate it."""

    module: str
    expert: int
    tokens: int
    needed: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """The whole answer: enough, more samples (with the number), or a mix that misses some traffic (with the tag)."""

    layers: tuple[LayerCertificate, ...]
    tags: tuple[TagCertificate, ...]
    starved_experts: tuple[ExpertTokens, ...]
    verdict: CalibrationVerdict
    reason: str
    needed_sequences: int | None = None
