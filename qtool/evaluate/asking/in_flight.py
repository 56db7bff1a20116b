"""Keeps a fixed number of requests in the engine, so that it batches and no item's clock runs while it waits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from qtool.engine.contract import Engine, FinishReason, GenerationRequest, TokenEvent
from qtool.engine.drive import at_most, drive
from qtool.errors import ModelError, NumericError


@dataclass(slots=True)
class Flight:
    """One request under way or landed: its tokens, and by how many nats each beat the best other token."""

    index: int
    started_s: float
    ended_s: float = 0.0
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    finish: FinishReason = "abort"

    @property
    def latency_ms(self) -> float:
        """From submission to the last token, in milliseconds."""
        return 1000.0 * (self.ended_s - self.started_s)


def fly(engine: Engine, requests: Sequence[GenerationRequest], *, in_flight: int) -> Iterator[Flight]:
    """Each request's flight as it lands. Raises ModelError where the engine fails on one."""
    flying: dict[int, Flight] = {}
    for advances in drive(engine, requests, at_most(in_flight)):
        for advance in advances:
            flight = flying.setdefault(advance.index, Flight(advance.index, advance.submitted_s))
            _note(flight, advance.event, requests[flight.index])
            if advance.event.finish is not None:
                yield flying.pop(flight.index)


def _note(flight: Flight, event: TokenEvent, request: GenerationRequest) -> None:
    flight.ended_s = event.time_s
    if event.token is not None and event.token not in request.stop_ids:
        flight.ids.append(event.token)
        if event.logprob is not None:
            flight.logprobs.append(event.logprob)
            others = [logprob for token, logprob in event.top if token != event.token]
            if others:
                flight.margins.append(event.logprob - max(others))
    if event.finish is not None:
        flight.finish = event.finish
        if event.finish == "error":
            kind = NumericError if "NaN" in (event.error or "") else ModelError
            raise kind(f"the engine failed on an item: {event.error}")
