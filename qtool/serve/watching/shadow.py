"""Served answers read again by the reference variant when it is idle: how often both would have said the same.

One teacher-forced pass per sampled answer and no second generation. `agreement` is the share of served tokens that are
the reference's own first choice; `excess` the mean of log p(variant) - log p(reference) over served tokens, which for
answers sampled at temperature 1 estimates the Kullback-Leibler divergence (nats per token).
"""

import asyncio
import hashlib
import logging
from dataclasses import dataclass

from qtool.engine.contract import ScoreRequest
from qtool.serve.deployment import Deployment
from qtool.serve.watching.metrics import Metrics

_log = logging.getLogger("qtool.serve")
_PARTS = 10_000
_WAITING = 64
_IDLE_POLL_SECONDS = 0.05
_LONGEST_TOKENS = 512
_MEMORY = 0.98  # weight of the past in the running score: the last fifty answers count


@dataclass(frozen=True, slots=True)
class Served:
    """One answer as it was served: its prompt and tokens, their log-probabilities, and where its metrics are."""

    request_id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    metrics: Metrics


@dataclass(slots=True)
class Standing:
    """The running score of a variant."""

    answers: int = 0
    agreement: float = 0.0
    excess: float = 0.0

    def add(self, agreement: float, excess: float) -> None:
        """One answer more."""
        weight = max(1.0 - _MEMORY, 1.0 / (self.answers + 1))
        self.agreement += weight * (agreement - self.agreement)
        self.excess += weight * (excess - self.excess)
        self.answers += 1


class Shadow:
    """Scores a share of the served answers with `reference`; those it has no time for are counted in `lost`."""

    def __init__(self, reference: Deployment, *, rate: float) -> None:
        self.reference = reference
        self.rate = rate
        self.lost = 0
        self.standings: dict[str, Standing] = {}
        self._waiting: asyncio.Queue[Served] = asyncio.Queue(_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Opens the reference and begins to score."""
        self.reference.start(loop)
        self._task = loop.create_task(self._work())

    def close(self) -> None:
        """Ends the scoring and the reference."""
        if self._task is not None:
            self._task.cancel()
        self.reference.close()

    def chooses(self, request_id: str) -> bool:
        """Whether the answer to that request is scored."""
        digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=b"shadow").digest()
        return int.from_bytes(digest, "big") % _PARTS < self.rate * _PARTS

    def take(self, served: Served) -> None:
        """Queues an answer; lost where too many wait."""
        if not served.tokens or len(served.prompt) + len(served.tokens) > (self.reference.context_tokens or 0):
            return
        try:
            self._waiting.put_nowait(served)
        except asyncio.QueueFull:
            self.lost += 1

    async def _work(self) -> None:
        supervisor = self.reference.supervisor
        while True:
            served = await self._waiting.get()
            while not supervisor.answering or supervisor.running or supervisor.waiting:
                await asyncio.sleep(_IDLE_POLL_SECONDS)
            tokens = served.tokens[:_LONGEST_TOKENS]
            scored = await supervisor.score([ScoreRequest(served.prompt, tokens)])
            if not scored:
                self.lost += 1
                continue
            own = served.logprobs[: len(tokens)]
            agreement = sum(scored[0].greedy) / len(tokens)
            excess = sum(mine - theirs for mine, theirs in zip(own, scored[0].logprobs, strict=True)) / len(tokens)
            standing = self.standings.setdefault(served.metrics.variant, Standing())
            standing.add(agreement, excess)
            served.metrics.shadowed(standing.agreement, standing.excess)
