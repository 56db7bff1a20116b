"""One load level over all variants: warm-up until stable, then rounds that go from variant to variant."""

import statistics
from dataclasses import dataclass, field

from qtool.engine.contract import Engine
from qtool.latency.timing import Load, Timed
from qtool.latency.traffic import random_requests, send
from qtool.progress import Advance
from qtool.records.place import Place
from qtool.records.plan import LatencySettings

_ROUNDS = 4
_WARM_UPS = 5
_STABLE_RATIO = 0.1


@dataclass(slots=True, eq=False)
class Subject:
    """One variant being timed. `notes` are what a reader of its times must know."""

    name: str
    place: Place
    engine: Engine
    timed: dict[Load, list[Timed]] = field(default_factory=dict)
    seconds: dict[Load, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def requests_at(load: Load, settings: LatencySettings) -> int:
    """How many requests a level takes: what was asked, but twice its concurrency in all, or it would never be full."""
    return max(settings.requests, 2 * load.concurrency if load.rate_per_second is None else 1)


def time_level(subjects: list[Subject], load: Load, settings: LatencySettings, advance: Advance) -> None:
    """All requests of one level, A B A B."""
    total = requests_at(load, settings)
    rounds = max(2, min(_ROUNDS, total // (2 * load.concurrency))) if total > 1 else 1
    for subject in subjects:
        if not _warm_up(subject.engine, load, settings):
            subject.notes.append(f"{label(load)}: {_WARM_UPS} warm-up batches did not settle within a tenth")
        subject.timed[load] = []
        subject.seconds[load] = 0.0
    for number in range(rounds):
        count = total * (number + 1) // rounds - total * number // rounds
        for subject in subjects:
            requests = random_requests(
                count,
                prompt_tokens=settings.prompt_tokens,
                output_tokens=settings.output_tokens,
                vocabulary=subject.engine.status().vocabulary,
                seed=1000 + number,
            )
            timed, seconds = send(subject.engine, list(requests), load, seed=number)
            subject.timed[load] += timed
            subject.seconds[load] += seconds
            advance(count)


def label(load: Load) -> str:
    """The level's name among the raw samples."""
    return f"closed-{load.concurrency}" if load.rate_per_second is None else f"open-{load.rate_per_second:g}"


def _warm_up(engine: Engine, load: Load, settings: LatencySettings) -> bool:
    """Runs a batch at a time until two in a row take the same time within a tenth, at most five; whether they did."""
    previous = 0.0
    for number in range(_WARM_UPS):
        requests = random_requests(
            load.concurrency,
            prompt_tokens=settings.prompt_tokens,
            output_tokens=settings.output_tokens,
            vocabulary=engine.status().vocabulary,
            seed=number,
        )
        timed, _ = send(engine, list(requests), Load(load.concurrency))
        times = [request.e2e_ms for request in timed if request.failed is None]
        current = statistics.median(times) if times else 0.0
        if abs(current - previous) <= _STABLE_RATIO * current:
            return True
        previous = current
    return False
