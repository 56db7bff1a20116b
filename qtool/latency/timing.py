"""When each request was sent and each of its tokens came, and the four times made of that, as vLLM defines them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qtool.latency.quantiles import quantiles
from qtool.records.latency import LoadLevel


@dataclass(frozen=True, slots=True)
class Timed:
    """One finished request: seconds on a monotonic clock. `failed` says why it has no times."""

    sent_s: float
    token_times_s: tuple[float, ...]
    prompt_tokens: int
    failed: str | None = None

    @property
    def ttft_ms(self) -> float:
        """Sent to first token."""
        return 1e3 * (self.token_times_s[0] - self.sent_s)

    @property
    def e2e_ms(self) -> float:
        """Sent to last token."""
        return 1e3 * (self.token_times_s[-1] - self.sent_s)

    @property
    def tpot_ms(self) -> float | None:
        """Mean time of a token after the first; None with one token."""
        later = len(self.token_times_s) - 1
        return (self.e2e_ms - self.ttft_ms) / later if later else None

    @property
    def itl_ms(self) -> tuple[float, ...]:
        """Gaps between tokens."""
        times = self.token_times_s
        return tuple(1e3 * (after - before) for before, after in pairwise(times))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request must keep to count as goodput; the defaults are MLPerf's for an 8 B server."""

    ttft_ms: float = 2000.0
    tpot_ms: float = 100.0

    def keeps(self, timed: Timed) -> bool:
        """Whether a request met both."""
        tpot = timed.tpot_ms
        return timed.ttft_ms <= self.ttft_ms and (tpot is None or tpot <= self.tpot_ms)


@dataclass(frozen=True, slots=True)
class Load:
    """How requests come: `concurrency` kept in flight, or at random at `rate_per_second` with no such bound."""

    concurrency: int
    rate_per_second: float | None = None


def summarize(load: Load, timed: Sequence[Timed], seconds: float, limits: Limits) -> LoadLevel:
    """The level's record from its requests and the time they took together; failed ones are counted, not timed."""
    done = [request for request in timed if request.failed is None and request.token_times_s]
    tokens = sum(len(request.token_times_s) for request in done)
    return LoadLevel(
        concurrency=load.concurrency if load.rate_per_second is None else _most_in_flight(done),
        requests=len(done),
        prompt_tokens=round(sum(request.prompt_tokens for request in done) / max(len(done), 1)),
        output_tokens=round(tokens / max(len(done), 1)),
        ttft=quantiles([request.ttft_ms for request in done]),
        tpot=quantiles([tpot for request in done if (tpot := request.tpot_ms) is not None]),
        itl=quantiles([gap for request in done for gap in request.itl_ms]),
        e2e=quantiles([request.e2e_ms for request in done]),
        output_tokens_per_second=tokens / seconds if seconds else 0.0,
        requests_per_second=len(done) / seconds if seconds else 0.0,
        arrivals="closed" if load.rate_per_second is None else "open",
        rate_per_second=load.rate_per_second,
        failed=len(timed) - len(done),
        goodput_per_second=sum(map(limits.keeps, done)) / seconds if seconds else 0.0,
        ttft_limit_ms=limits.ttft_ms,
        tpot_limit_ms=limits.tpot_ms,
        failure=next((request.failed for request in timed if request.failed is not None), None),
    )


def _most_in_flight(done: Sequence[Timed]) -> int:
    borders = sorted([(request.sent_s, 1) for request in done] + [(request.token_times_s[-1], -1) for request in done])
    most = flying = 0
    for _, change in borders:
        flying += change
        most = max(most, flying)
    return max(most, 1)
