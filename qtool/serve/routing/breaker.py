"""A circuit breaker: a variant that fails, is slow or answers badly gets no requests for a while, then a few."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a breaker opens, over `window_seconds` with at least `fewest` requests; None: that side is not watched.

    `quality` is the lowest mean score of the answers, `shadow` that of the last `fewest` which a reference read again,
    however long ago: they are few. `p99_seconds` the highest 99th percentile of complete answers.
    """

    error_rate: float | None = 0.5
    p99_seconds: float | None = None
    quality: float | None = None
    shadow: float | None = None
    window_seconds: float = 30.0
    fewest: int = 20
    shortest_open_seconds: float = 5.0
    longest_open_seconds: float = 60.0
    probes: int = 3


class Breaker:
    """Closed: all pass. Open: none pass. Half-open: a few pass, and their outcome closes or opens it again."""

    def __init__(self, thresholds: Thresholds, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._thresholds = thresholds
        self._clock = clock
        self._seen: deque[tuple[float, bool, float, float | None]] = deque()
        self._shadow: deque[float] = deque(maxlen=thresholds.fewest)
        self._open_seconds = thresholds.shortest_open_seconds
        self._opened_s = 0.0
        self._probes_out = 0
        self._probes_good = 0
        self.state: State = "closed"
        self.reason = ""

    def allows(self) -> bool:
        """Whether a request may pass now; in the half-open state this takes one of its places."""
        if self.state == "open" and self._clock() - self._opened_s >= self._open_seconds:
            self.state = "half-open"
            self._probes_out = self._probes_good = 0
        if self.state == "open":
            return False
        if self.state == "half-open":
            if self._probes_out >= self._thresholds.probes:
                return False
            self._probes_out += 1
        return True

    def record(self, *, good: bool, seconds: float, quality: float | None = None) -> None:
        """The outcome of a request that passed; sheds and aborts are none."""
        if self.state == "half-open":
            self._record_probe(good=good)
            return
        if self.state == "open":
            return
        now = self._clock()
        self._seen.append((now, good, seconds, quality))
        while self._seen[0][0] < now - self._thresholds.window_seconds:
            self._seen.popleft()
        reason = self._fault()
        if reason:
            self._open(reason)

    def record_shadow(self, score: float) -> None:
        """What a reference says of an answer, some time after it was given."""
        self._shadow.append(score)
        limit = self._thresholds.shadow
        if limit is None or self.state != "closed" or len(self._shadow) < self._thresholds.fewest:
            return
        mean = sum(self._shadow) / len(self._shadow)
        if mean < limit:
            self._open(f"quality against the reference {mean:.3f} below {limit:.3f}")

    def release(self) -> None:
        """A request that passed had no outcome: its place in the half-open state is free again."""
        if self.state == "half-open":
            self._probes_out -= 1

    def trip(self, reason: str) -> None:
        """Opens at once."""
        self._open(reason)

    def _record_probe(self, *, good: bool) -> None:
        if not good:
            self._open_seconds = min(2 * self._open_seconds, self._thresholds.longest_open_seconds)
            self._open("a probe failed")
            return
        self._probes_good += 1
        if self._probes_good >= self._thresholds.probes:
            self.state, self.reason = "closed", ""
            self._open_seconds = self._thresholds.shortest_open_seconds

    def _open(self, reason: str) -> None:
        self.state, self.reason = "open", reason
        self._opened_s = self._clock()
        self._seen.clear()
        self._shadow.clear()

    def _fault(self) -> str:
        limits, count = self._thresholds, len(self._seen)
        if count < limits.fewest:
            return ""
        errors = sum(not good for _, good, _, _ in self._seen) / count
        if limits.error_rate is not None and errors > limits.error_rate:
            return f"{errors:.0%} of {count} requests failed"
        times = sorted(seconds for _, good, seconds, _ in self._seen if good)
        if limits.p99_seconds is not None and times:
            p99 = times[min(int(0.99 * len(times)), len(times) - 1)]
            if p99 > limits.p99_seconds:
                return f"p99 of {p99:.2f} seconds"
        scores = [quality for _, _, _, quality in self._seen if quality is not None]
        if limits.quality is not None and len(scores) >= limits.fewest:
            mean = sum(scores) / len(scores)
            if mean < limits.quality:
                return f"quality {mean:.3f} below {limits.quality:.3f}"
        return ""
