"""What a server and its engine say to each other: commands one way, reports the other."""

from dataclasses import dataclass

from qtool.engine.contract import EngineStatus, GenerationRequest, ScoreRequest, TokenEvent

KERNELS_AS_MEASURED = "as measured"  # the fact "kernels" of an engine that computes as the bundle was timed


@dataclass(frozen=True, slots=True)
class Submit:
    """Run `request` under the caller's `number`."""

    number: int
    request: GenerationRequest


@dataclass(frozen=True, slots=True)
class Abort:
    """End the request of that number; one that has ended is left alone."""

    number: int


@dataclass(frozen=True, slots=True)
class Look:
    """Read `request` once more: what goes into `layers`, and the distributions before its tokens at `places`, written
    to the file `path`. The answer is a `Looked` of the same number."""

    number: int
    request: ScoreRequest
    places: tuple[int, ...]
    layers: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Hold this engine's distributions against those that another one wrote to `path` for the same `request` and
    `places`. The answer is a `Compared` of the same number."""

    number: int
    request: ScoreRequest
    places: tuple[int, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Close:
    """Free the engine and end."""


@dataclass(frozen=True, slots=True)
class Phase:
    """How far opening has come, in a word."""

    name: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The engine answers from now on. `facts` are told by /ready and /v1/models; `slowest_step_seconds` bounds how long
    a step may take before it counts as hung."""

    status: EngineStatus
    facts: tuple[tuple[str, str], ...] = ()
    slowest_step_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine refused the request of that number."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Looked:
    """What was seen: for each layer how often each bin of records/histogram.py occurred in its input, zeros left out.
    `reason` says why nothing was, where that is so."""

    number: int
    inputs: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Compared:
    """Over the places compared: mean KL(this engine || the other) in nats, share at which both prefer the same token,
    mean sum of min(p, q). `reason` says why there is nothing, where that is so."""

    number: int
    kl_nats: float
    agreement: float
    acceptance: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Beat:
    """The loop does its rounds; sometimes with the engine's counts, and bytes of the accelerator in use and in all."""

    status: EngineStatus | None = None
    device_bytes: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not be opened, or broke: a reason for the log, and the exit code it stands for."""

    reason: str
    exit_code: int


Errand = Look | Compare
Command = Submit | Abort | Look | Compare | Close
Report = Phase | Opened | Refusal | Looked | Compared | Beat | Failed | tuple[TokenEvent, ...]
