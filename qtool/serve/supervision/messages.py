"""What a server and its engine say to each other: commands one way, reports the other."""

from dataclasses import dataclass

from qtool.engine.contract import EngineStatus, GenerationRequest, Scored, ScoreRequest, TokenEvent


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
class Score:
    """Teacher-force `requests` when nothing else runs; the answer is a `Scores` of the same number."""

    number: int
    requests: tuple[ScoreRequest, ...]


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
class Scores:
    """The scores asked for; empty where the requests were refused."""

    number: int
    scored: tuple[Scored, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing to tell, but the loop does its rounds."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine could not be opened, or broke: a reason for the log, and the exit code it stands for."""

    reason: str
    exit_code: int


Command = Submit | Abort | Score | Close
Report = Phase | Opened | Refusal | Scores | Beat | Failed | tuple[TokenEvent, ...]
