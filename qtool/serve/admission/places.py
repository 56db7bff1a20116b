"""Who may come in: one count, checked and raised in a single step of the event loop, before any work is done."""

import math
import random
import time
from collections import deque
from collections.abc import Callable

from qtool.serve.api.refusal import shed

_WINDOW_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 60
_SHARE = 0.75  # of the queue that one key may fill: the rest stays open for others


class Places:
    """Counts choices admitted and not yet finished; at most `capacity` at a time, of which `running` need no wait.

    The queue is bounded by time too: who would start later than `queue_seconds` from now, at the rate at which places
    have become free in the last seconds, is turned away at once.
    """

    def __init__(
        self,
        running: int,
        queue: int,
        *,
        queue_seconds: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._running = running
        self._queue = queue
        self._queue_seconds = queue_seconds
        self._clock = clock
        self._finished: deque[float] = deque()
        self._held: dict[str, int] = {}
        self.admitted = 0
        self.draining = False
        self.lag_seconds = 0.0  # how late the event loop is: what arrives now has waited that long unseen

    def check(self) -> None:
        """Raises Refused (503) where not even one choice would be admitted: before a body is read."""
        self._check(1, "", ahead=0)

    def check_draining(self) -> None:
        """Raises Refused (503) where nobody is admitted any more: before a body is read."""
        if self.draining:
            raise shed("the server is shutting down; another one will take over", self.retry_after())

    def admit(self, choices: int, key: str = "", *, ahead: int = 0) -> "Ticket":
        """Room for `choices` of `key`, taken at once or refused at once (503 with Retry-After).

        `ahead` is the number of waiting choices that would start first.
        """
        self._check(choices, key, ahead=ahead)
        self.admitted += choices
        self._held[key] = self._held.get(key, 0) + choices
        return Ticket(self, choices, key)

    def release(self, choices: int, key: str) -> None:
        """Gives room back; called by the ticket."""
        self.admitted -= choices
        self._held[key] -= choices
        if not self._held[key]:
            del self._held[key]
        now = self._clock()
        self._finished.extend([now] * choices)

    def rate(self) -> float | None:
        """Choices finished per second over the last seconds; None where too few finished to tell."""
        since = self._clock() - _WINDOW_SECONDS
        while self._finished and self._finished[0] < since:
            self._finished.popleft()
        if len(self._finished) < 2:
            return None
        return len(self._finished) / max(self._clock() - self._finished[0], 0.1)

    def expected_wait_seconds(self, ahead: int) -> float:
        """How long a choice behind `ahead` waiting ones will wait; 0 where nothing tells."""
        rate = self.rate()
        queued = ahead / rate if rate and self.admitted >= self._running else 0.0
        return queued + self.lag_seconds if queued else 0.0

    def retry_after(self) -> int:
        """Seconds until room is likely, 1 to 60, spread so that those turned away do not all come back at once."""
        rate = self.rate()
        excess = max(self.admitted - self._running, 1)
        seconds = excess / rate if rate else 2.0
        return min(max(math.ceil(seconds * random.uniform(1.0, 1.5)), 1), _LONGEST_WAIT_SECONDS)

    def _check(self, choices: int, key: str, *, ahead: int) -> None:
        self.check_draining()
        capacity = self._running + self._queue
        if self.admitted + choices > capacity:
            raise shed(
                f"the server is full: {self.admitted} of {capacity} places taken, {choices} asked", self.retry_after()
            )
        if len(self._held) > 1 and self._held.get(key, 0) + choices > self._running + self._queue * _SHARE:
            raise shed(f"this key holds {self._held[key]} places; others wait too", self.retry_after())
        wait = self.expected_wait_seconds(ahead)
        if wait > self._queue_seconds:
            raise shed(f"the wait would be {wait:.1f} seconds, more than {self._queue_seconds:g}", self.retry_after())


class Ticket:
    """Places taken; giving them back twice is one giving back."""

    def __init__(self, places: Places, choices: int, key: str) -> None:
        self._places = places
        self._choices = choices
        self._key = key
        self._then: list[Callable[[], None]] = []

    def on_release(self, then: Callable[[], None]) -> None:
        """Calls `then` when the places are given back."""
        self._then.append(then)

    def release(self) -> None:
        """Gives the places back."""
        choices, self._choices = self._choices, 0
        if choices:
            self._places.release(choices, self._key)
            for then in self._then:
                then()
