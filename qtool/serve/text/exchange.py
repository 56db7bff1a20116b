"""One client request in progress: its choices in the engine, their events, its deadline, its end."""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from qtool.engine.contract import GenerationRequest, TokenEvent
from qtool.serve.api.refusal import Refused, expired, failed, lost, shed
from qtool.serve.api.schema import Sampled
from qtool.serve.supervision.jobs import Again, Event, Expired, Job, Lost, Owner, Rejected, Shed, Started
from qtool.serve.text.parts import Splitter
from qtool.serve.text.transcript import Piece, Transcript

if TYPE_CHECKING:
    from qtool.serve.text.prompts import Prepared
    from qtool.serve.text.vocabulary import Vocabulary


_log = logging.getLogger("qtool.serve")
_SEEDS = 2**63


class Queue(Protocol):
    """Where jobs go: the supervisor."""

    def submit(self, job: Job) -> None: ...

    def abort(self, job: Job) -> None: ...


@dataclass(frozen=True, slots=True)
class Stopped:
    """The server itself ends the request."""

    refused: Refused


@dataclass(slots=True, eq=False)
class Choice:
    """One answer of a request: place, prompt, text so far, and the times of its events (seconds, monotonic)."""

    index: int
    prompt: tuple[int, ...]
    transcript: Transcript
    splitter: Splitter
    last_token_s: float | None = None
    started_s: float | None = None
    first_token_s: float | None = None
    shown: bool = False
    job: Job | None = None

    @property
    def finished(self) -> bool:
        """Whether its last piece has been given out."""
        return self.transcript.finish is not None


class Watch(Protocol):
    """Told of every moment that a metric counts."""

    def queued(self, seconds: float) -> None: ...

    def first_token(self, seconds: float) -> None: ...

    def next_token(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one request: when it arrived, how long it may take and wait (seconds), and whose it is."""

    arrived_s: float
    deadline_seconds: float
    queue_seconds: float
    owner: Owner = field(default_factory=Owner)


class Exchange:
    """The choices of one request. Iterate `pieces` to the end, or call `cancel`."""

    def __init__(
        self,
        asked: Sampled,
        prepared: "Prepared",
        lengths: Sequence[int],
        *,
        vocabulary: "Vocabulary",
        terms: Terms,
        watch: Watch,
    ) -> None:
        self.asked = asked
        self.arrived_s = terms.arrived_s
        self.cut_short = False
        self._terms = terms
        self._vocabulary = vocabulary
        self._watch = watch
        self._prepared = prepared
        self._queue: Queue | None = None
        self._events: asyncio.Queue[tuple[Choice, Event | Stopped]] = asyncio.Queue()
        self._seed = asked.seed % _SEEDS if asked.seed is not None else secrets.randbits(62)
        self.choices = tuple(
            Choice(place * asked.n + number, ids, self._transcript(ids), self.splitter())
            for place, ids in enumerate(prepared.prompts)
            for number in range(asked.n)
        )
        start_by_s = terms.arrived_s + terms.queue_seconds
        for choice in self.choices:
            request = self._request(choice, lengths[choice.index // asked.n])
            choice.job = Job(
                request,
                terms.arrived_s + terms.deadline_seconds,
                self._receiver(choice),
                # the later choices of a request wait for its earlier ones, which no queue limit is meant for
                start_by_s=start_by_s if choice.index == 0 else float("inf"),
                owner=terms.owner,
                repeatable=lambda choice=choice: not (asked.stream and choice.shown),  # type: ignore[misc]
            )

    def splitter(self) -> Splitter:
        """What tells the parts of one answer apart."""
        prepared = self._prepared
        return Splitter(tools=prepared.tools, thinks=prepared.thinks, thinking=prepared.thinking)

    def start(self, queue: Queue) -> None:
        """Hands every choice to `queue`."""
        self._queue = queue
        for choice in self.choices:
            if choice.job is not None:
                queue.submit(choice.job)

    def cancel(self) -> None:
        """Ends every choice that has not ended; calling it after the end does nothing."""
        for choice in self.choices:
            if not choice.finished and choice.job is not None and self._queue is not None:
                self._queue.abort(choice.job)

    def stop(self, refused: Refused) -> None:
        """Ends the request with `refused`: `pieces` raises it."""
        self._events.put_nowait((self.choices[0], Stopped(refused)))

    async def pieces(self) -> AsyncIterator[tuple[Choice, Piece]]:
        """Every piece of every choice as it becomes known. Raises Refused when one fails or time is over."""
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(self.remaining_seconds, self._receiver(self.choices[0]), Expired())
        try:
            while not all(choice.finished for choice in self.choices):
                choice, event = await self._events.get()
                if isinstance(event, Expired):
                    for ended in self._cut_short():
                        yield ended
                    return
                piece = None if choice.finished else self._piece(choice, event)
                if piece is not None:
                    choice.shown = True
                    yield choice, piece
        finally:
            alarm.cancel()
            self.cancel()

    @property
    def idle(self) -> bool:
        """Whether no event waits to be read."""
        return self._events.empty()

    @property
    def remaining_seconds(self) -> float:
        """Seconds left until the deadline."""
        return max(self.arrived_s + self._terms.deadline_seconds - time.monotonic(), 0.0)

    def _cut_short(self) -> list[tuple[Choice, Piece]]:
        """The ends of all choices where the length was left to the server and each has some text: they end as if that
        length were reached. Raises Refused (504) for the others, whose client would take a part for the whole."""
        open_choices = [choice for choice in self.choices if not choice.finished]
        if not self.asked.open_ended or not all(choice.transcript.generated for choice in open_choices):
            raise expired(self._terms.deadline_seconds)
        self.cancel()
        self.cut_short = True
        ends = [(choice, choice.transcript.end()) for choice in open_choices]
        return [(choice, piece) for choice, piece in ends if piece is not None]

    def _transcript(self, ids: tuple[int, ...]) -> Transcript:
        return Transcript(ids, self.asked.stops, self._vocabulary)

    def _request(self, choice: Choice, length: int) -> GenerationRequest:
        asked = self.asked
        return GenerationRequest(
            ids=choice.prompt,
            max_new_tokens=length,
            sampling=asked.sampling(choice_seed(self._seed, choice.index % asked.n)),
            stop_ids=(*asked.stop_token_ids, *(() if asked.ignore_eos else self._vocabulary.stop_ids)),
            stop=asked.stops,
            logprobs=asked.alternatives,
            grammar=self._prepared.grammar,
        )

    def _receiver(self, choice: Choice) -> Callable[[Event], None]:
        events = self._events
        return lambda event: events.put_nowait((choice, event))

    def _piece(self, choice: Choice, event: Event | Stopped) -> Piece | None:
        if isinstance(event, Started):
            if choice.started_s is None:
                self._watch.queued(event.time_s - self.arrived_s)
            choice.started_s = event.time_s
            return None
        if isinstance(event, Again):
            choice.transcript = self._transcript(choice.prompt)
            choice.last_token_s = None
            return None
        if isinstance(event, TokenEvent):
            return self._token(choice, event)
        assert not isinstance(event, Expired)  # `pieces` has seen to it
        raise self._refusal(event)

    def _token(self, choice: Choice, event: TokenEvent) -> Piece | None:
        if event.finish == "error":
            _log.error("the engine could not answer: %s", event.error)
            raise failed("the engine could not answer this request; the server's log says why")
        if event.finish == "abort":
            raise failed("the engine dropped the request")
        if event.token is not None:
            self._time(choice, event.time_s)
        piece = choice.transcript.take(event)
        if choice.finished and event.finish is None and choice.job is not None and self._queue is not None:
            self._queue.abort(choice.job)  # a stop string was found here that the engine did not see
        return piece

    def _time(self, choice: Choice, now: float) -> None:
        if choice.last_token_s is None:
            choice.first_token_s = now
            self._watch.first_token(now - self.arrived_s)
        else:
            self._watch.next_token(now - choice.last_token_s)
        choice.last_token_s = now

    def _refusal(self, event: Rejected | Lost | Shed | Stopped) -> Refused:
        if isinstance(event, Stopped):
            return event.refused
        if isinstance(event, Rejected):
            return Refused(400, event.reason)
        if isinstance(event, Shed):
            waited = time.monotonic() - self.arrived_s
            self._watch.queued(waited)
            return shed(f"no place became free within {self._terms.queue_seconds:g} seconds", 2)
        return lost()


def choice_seed(seed: int, number: int) -> int:
    """The seed of choice `number`. The first has the request's own, the others are unrelated to it and to each other:
    with seed + number, choice 1 of seed 5 would be choice 0 of seed 6."""
    if number == 0:
        return seed
    mixed = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(mixed, "big") % _SEEDS
