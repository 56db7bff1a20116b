"""What was timed, under which load, with how many samples."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from qtool.records.evaluation import Interval
from qtool.records.presentation import Presented


@dataclass(frozen=True, slots=True)
class Quantile:
    """Quantile `q` in milliseconds with its distribution-free interval; None where the sample is too small for it."""

    q: float
    value_ms: float | None
    interval: Interval | None
    samples: int
    samples_needed: int


@dataclass(frozen=True, slots=True)
class LoadLevel:
    """`concurrency` requests kept in flight: TTFT, TPOT, ITL, end to end as vLLM's `bench serve` defines them.

    With `arrivals` "open" requests come at random (Poisson) at `rate_per_second` whether or not earlier ones are
    done, `concurrency` being the most that were in flight. `goodput_per_second` counts requests within both limits;
    `failure` is why the first of the `failed` ones failed.
    """

    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    ttft: tuple[Quantile, ...]
    tpot: tuple[Quantile, ...]
    itl: tuple[Quantile, ...]
    e2e: tuple[Quantile, ...]
    output_tokens_per_second: float
    requests_per_second: float
    arrivals: Literal["closed", "open"] = "closed"
    rate_per_second: float | None = None
    failed: int = 0
    goodput_per_second: float | None = None
    ttft_limit_ms: float | None = None
    tpot_limit_ms: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class MachineState:
    """Where and how the clock ran, so that two profiles are compared only if they may be."""

    hardware: str
    device: str
    threads: int
    torch_version: str
    load_average_before: float
    load_average_after: float


@dataclass(frozen=True, slots=True, repr=False)
class LatencyProfile(Presented):
    """The manifest `latency/<variant>.json`; raw samples lie beside it in `<variant>.samples.json`."""

    SHOWN: ClassVar[tuple[str, ...]] = ("variant", "machine.device", "peak_memory_bytes")

    format_version: int
    variant: str
    variant_digest: str
    machine: MachineState
    levels: tuple[LoadLevel, ...]
    load_seconds: float
    first_token_seconds: float
    peak_memory_bytes: int
    weight_bytes: int
    kernels: tuple[tuple[str, str], ...]
    simulated: bool
    qtool_version: str
    cache_bytes: int = 0
    bandwidth_bytes_per_second: float | None = None
    roofline_ratio: float | None = None
    notes: tuple[str, ...] = ()
    peak_gpu_bytes: int = 0
    dtype: str = ""
