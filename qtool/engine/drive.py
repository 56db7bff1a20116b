"""The one loop over an engine: submit requests as a pace allows, step until all have ended.

A server has another one (serve/supervision/engine_loop.py): its requests come while it runs, and clients hang up.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic

from qtool.engine.contract import Engine, Generation, GenerationRequest, TokenEvent
from qtool.errors import RequestError


def _go_on(upcoming: int) -> None:
    """Waits for nothing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When requests are submitted: `may_submit` is asked with the next one's index and how many run now. `wait` is
    called with that index where none runs and the next may not start yet."""

    may_submit: Callable[[int, int], bool]
    wait: Callable[[int], None] = _go_on


def at_most(count: int) -> Pace:
    """A new request whenever fewer than `count` run."""
    return Pace(lambda _, running: running < count)


@dataclass(frozen=True, slots=True)
class Advance:
    """What one step gave to the request at `index`, which was submitted at `submitted_s` (monotonic)."""

    index: int
    submitted_s: float
    event: TokenEvent


def drive(
    engine: Engine,
    requests: Sequence[GenerationRequest],
    pace: Pace,
    *,
    on_refusal: Callable[[int, float, RequestError], None] | None = None,
) -> Iterator[list[Advance]]:
    """What each step of the engine gave, until every request has ended.

    `on_refusal` is called with index, time and reason of a request that the engine refuses; without it that is raised.
    """
    running: dict[int, tuple[int, float]] = {}
    upcoming = 0
    while upcoming < len(requests) or running:
        while upcoming < len(requests) and pace.may_submit(upcoming, len(running)):
            index, submitted_s = upcoming, monotonic()
            upcoming += 1
            try:
                running[engine.submit(requests[index])] = (index, submitted_s)
            except RequestError as error:
                if on_refusal is None:
                    raise
                on_refusal(index, submitted_s, error)
        if not running:
            if upcoming < len(requests):
                pace.wait(upcoming)
            continue
        advances = [Advance(*running[event.request], event) for event in engine.step() if event.request in running]
        for advance in advances:
            if advance.event.finish is not None:
                del running[advance.event.request]
        yield advances


@dataclass(slots=True)
class _Partial:
    """What is known of a request that has not ended."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    def add(self, advance: Advance) -> Generation | None:
        """Adds the event; the finished generation when it was the last."""
        event = advance.event
        if event.token is not None:
            self.ids.append(event.token)
            self.logprobs.append(event.logprob if event.logprob is not None else math.nan)
            self.times_s.append(event.time_s)
        if event.finish is None:
            return None
        return Generation(
            tuple(self.ids), tuple(self.logprobs), event.finish, advance.submitted_s, tuple(self.times_s), event.error
        )


def generate(
    engine: Engine,
    requests: Sequence[GenerationRequest],
    *,
    on_finish: Callable[[int, Generation], None] | None = None,
) -> list[Generation]:
    """The generation of each request, in the order of `requests`; an invalid one ends with finish "error".

    `on_finish` is called with index and generation as each ends.
    """
    results: list[Generation | None] = [None] * len(requests)
    partial = [_Partial() for _ in requests]

    def finish(index: int, generation: Generation) -> None:
        results[index] = generation
        if on_finish is not None:
            on_finish(index, generation)

    def refuse(index: int, submitted_s: float, error: RequestError) -> None:
        finish(index, Generation((), (), "error", submitted_s, (), str(error)))

    # twice as many as it has slots: the next ones are there as soon as a slot is free
    pace = Pace(lambda _, running: running < 2 * engine.status().slots)
    for advances in drive(engine, requests, pace, on_refusal=refuse):
        for advance in advances:
            if (generation := partial[advance.index].add(advance)) is not None:
                finish(advance.index, generation)
    return [result for result in results if result is not None]
