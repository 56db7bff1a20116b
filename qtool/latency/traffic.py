"""Sends requests to an engine as a load asks and notes when each token came."""

import random
import time
from collections.abc import Iterator, Sequence

from qtool.engine.contract import Engine, GenerationRequest
from qtool.engine.drive import Pace, at_most, drive
from qtool.errors import RequestError
from qtool.latency.timing import Load, Timed

_LONGEST_NAP_S = 0.001


def random_requests(
    count: int, *, prompt_tokens: int, output_tokens: int, vocabulary: int, seed: int
) -> Iterator[GenerationRequest]:
    """Prompts of random ids, so that no two share a prefix, each answered by exactly `output_tokens` tokens."""
    stream = random.Random(seed)
    for _ in range(count):
        ids = tuple(stream.randrange(vocabulary) for _ in range(prompt_tokens))
        yield GenerationRequest(ids, output_tokens)


def send(
    engine: Engine, requests: Sequence[GenerationRequest], load: Load, *, seed: int = 0
) -> tuple[list[Timed], float]:
    """Every request, timed, in the order they ended, and the seconds from the first to the end of the last.

    An open load's clock starts when a request was due, not when the engine took it: waiting is part of its time.
    """
    times_s: list[list[float]] = [[] for _ in requests]
    done: list[Timed] = []
    started = time.monotonic()
    due = [started + after for after in _due_times(len(requests), load, seed)]

    def sent(index: int, submitted_s: float) -> float:
        return due[index] if due else submitted_s

    def refuse(index: int, submitted_s: float, error: RequestError) -> None:
        done.append(Timed(sent(index, submitted_s), (), len(requests[index].ids), str(error)))

    for advances in drive(engine, requests, _when_due(due) if due else at_most(load.concurrency), on_refusal=refuse):
        for advance in advances:
            index, event = advance.index, advance.event
            if event.token is not None:
                times_s[index].append(event.time_s)
            if event.finish is not None:
                tokens_s = tuple(times_s[index])
                failed = event.error or "no token came" if event.finish == "error" or not tokens_s else None
                done.append(Timed(sent(index, advance.submitted_s), tokens_s, len(requests[index].ids), failed))
    return done, time.monotonic() - started


def _when_due(due: Sequence[float]) -> Pace:
    """Each request at its time, however many run."""
    return Pace(
        lambda upcoming, _: time.monotonic() >= due[upcoming],
        lambda upcoming: time.sleep(max(min(due[upcoming] - time.monotonic(), _LONGEST_NAP_S), 0.0)),
    )


def _due_times(count: int, load: Load, seed: int) -> list[float]:
    """Seconds after the start at which each request is due: exponential gaps, stretched to the exact mean rate; none
    for a closed load, where each is due as soon as another has ended."""
    if load.rate_per_second is None:
        return []
    stream = random.Random(seed)
    gaps = [stream.expovariate(1.0) for _ in range(count)]
    stretch = count / load.rate_per_second / sum(gaps)
    times, elapsed = [], 0.0
    for gap in gaps:
        times.append(elapsed)
        elapsed += gap * stretch
    return times
