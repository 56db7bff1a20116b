"""What travels between a request and the engine: jobs one way, their events the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from qtool.engine.contract import GenerationRequest, TokenEvent

_MOST_DEATHS = 2  # a job that was in the batch of two dying engines may be the cause: it is not tried a third time


@dataclass(frozen=True, slots=True)
class Started:
    """A job left the queue and is in the batch."""

    time_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The engine refused the job, for a reason the client can act on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The engine went away with the job, which cannot be run again unnoticed."""


@dataclass(frozen=True, slots=True)
class Again:
    """The engine went away; the job starts from its beginning in the next one. What came so far is void."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The job's deadline passed while it waited for its turn."""


@dataclass(frozen=True, slots=True)
class Shed:
    """The job waited longer for its turn than the queue allows."""


Event = TokenEvent | Started | Rejected | Lost | Again | Expired | Shed


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose job it is, for a fair queue: the key (or address) first, its end user second."""

    key: str = ""
    user: str = ""


@dataclass(slots=True, eq=False)
class Job:
    """One choice to generate; `deliver` is called with each of its events in the event loop's thread.

    `start_by_s` bounds its wait (monotonic clock). `repeatable` says whether it may be run again from its beginning:
    not once a client has seen a part of the answer.
    """

    request: GenerationRequest
    deadline_s: float
    deliver: Callable[[Event], None]
    start_by_s: float = float("inf")
    owner: Owner = Owner()
    repeatable: Callable[[], bool] = lambda: True
    number: int | None = field(default=None, init=False)
    deaths: int = field(default=0, init=False)

    def is_over(self, now_s: float) -> bool:
        """Whether it has waited too long for its turn; then it is told so."""
        if now_s >= self.deadline_s:
            self.deliver(Expired())
        elif now_s >= self.start_by_s:
            self.deliver(Shed())
        else:
            return False
        return True


def survivors(running: Sequence[Job], *, repeat: bool) -> Iterator[Job]:
    """The jobs of a dead engine that run again in the next, the last first; the others are told that they are lost."""
    for job in reversed(running):
        job.deaths += 1
        if repeat and job.deaths < _MOST_DEATHS and job.repeatable():
            job.deliver(Again())
            yield job
        else:
            job.deliver(Lost())
