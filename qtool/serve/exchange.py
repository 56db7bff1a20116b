"""One client request in progress: its choices in the engine, their events, its deadline, its end."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from qtool.engine.contract import GenerationRequest, TokenEvent
from qtool.serve.refusal import Refused, expired, failed
from qtool.serve.schema import Sampled
from qtool.serve.transcript import Piece, Transcript
from qtool.serve.vocabulary import Vocabulary
from qtool.serve.worker import Event, Expired, Job, Lost, Rejected, Started


class Queue(Protocol):
    """Where jobs go: the worker."""

    def submit(self, job: Job) -> None: ...

    def abort(self, job: Job) -> None: ...


@dataclass(slots=True, eq=False)
class Choice:
    """One answer of a request: place, prompt, text so far, and the times of its events (seconds, monotonic)."""

    index: int
    prompt: tuple[int, ...]
    transcript: Transcript
    last_token_s: float | None = None
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


class Exchange:
    """The choices of one request. Iterate `pieces` to the end, or call `cancel`."""

    def __init__(
        self,
        asked: Sampled,
        prompts: Sequence[tuple[int, ...]],
        lengths: Sequence[int],
        *,
        vocabulary: Vocabulary,
        arrived_s: float,
        deadline_seconds: float,
        watch: Watch,
    ) -> None:
        self.asked = asked
        self.arrived_s = arrived_s
        self._deadline_seconds = deadline_seconds
        self._watch = watch
        self._events: asyncio.Queue[tuple[Choice, Event]] = asyncio.Queue()
        seed = asked.seed if asked.seed is not None else secrets.randbits(62)
        self.choices = tuple(
            Choice(place * asked.n + number, ids, Transcript(ids, asked.stops, vocabulary))
            for place, ids in enumerate(prompts)
            for number in range(asked.n)
        )
        stop_ids = (*asked.stop_token_ids, *(() if asked.ignore_eos else vocabulary.stop_ids))
        for choice in self.choices:
            request = GenerationRequest(
                ids=choice.prompt,
                max_new_tokens=lengths[choice.index // asked.n],
                sampling=asked.sampling((seed + choice.index % asked.n) % 2**63),
                stop_ids=stop_ids,
                stop=asked.stops,
                logprobs=asked.alternatives,
            )
            choice.job = Job(request, self.arrived_s + deadline_seconds, self._receiver(choice))

    def start(self, queue: Queue) -> None:
        """Hands every choice to `queue`."""
        self._queue = queue
        for choice in self.choices:
            if choice.job is not None:
                queue.submit(choice.job)

    def cancel(self) -> None:
        """Ends every choice that has not ended; calling it after the end does nothing."""
        for choice in self.choices:
            if not choice.finished and choice.job is not None:
                self._queue.abort(choice.job)

    async def pieces(self) -> AsyncIterator[tuple[Choice, Piece]]:
        """Every piece of every choice as it becomes known. Raises Refused when one fails or time is over."""
        loop = asyncio.get_running_loop()
        alarm = loop.call_later(self.remaining_seconds, self._receiver(self.choices[0]), Expired())
        try:
            while not all(choice.finished for choice in self.choices):
                choice, event = await self._events.get()
                if isinstance(event, Expired):
                    raise expired(self._deadline_seconds)
                piece = None if choice.finished else self._piece(choice, event)
                if piece is not None:
                    yield choice, piece
        finally:
            alarm.cancel()
            self.cancel()

    @property
    def remaining_seconds(self) -> float:
        """Seconds left until the deadline."""
        return max(self.arrived_s + self._deadline_seconds - time.monotonic(), 0.0)

    def _receiver(self, choice: Choice) -> "Receiver":
        return Receiver(self._events, choice)

    def _piece(self, choice: Choice, event: Event) -> Piece | None:
        if isinstance(event, Started):
            self._watch.queued(event.time_s - self.arrived_s)
            return None
        if isinstance(event, TokenEvent):
            return self._token(choice, event)
        assert not isinstance(event, Expired)  # `pieces` has seen to it
        raise self._refusal(event)

    def _token(self, choice: Choice, event: TokenEvent) -> Piece | None:
        if event.finish == "error":
            raise failed(f"the engine could not answer: {event.error}")
        if event.finish == "abort":
            raise failed("the engine dropped the request")
        if event.token is not None:
            self._time(choice, event.time_s)
        piece = choice.transcript.take(event)
        if choice.finished and event.finish is None and choice.job is not None:
            self._queue.abort(choice.job)  # a stop string was found here that the engine did not see
        return piece

    def _time(self, choice: Choice, now: float) -> None:
        if choice.last_token_s is None:
            self._watch.first_token(now - self.arrived_s)
        else:
            self._watch.next_token(now - choice.last_token_s)
        choice.last_token_s = now

    def _refusal(self, event: Rejected | Lost) -> Refused:
        if isinstance(event, Rejected):
            return Refused(400, event.reason)
        return failed("the engine has stopped; this server will not be ready again until it is restarted")


class Receiver:
    """Puts a job's events into its request's queue, in the event loop's thread."""

    def __init__(self, events: "asyncio.Queue[tuple[Choice, Event]]", choice: Choice) -> None:
        self._events = events
        self._choice = choice

    def __call__(self, event: Event) -> None:
        self._events.put_nowait((self._choice, event))
