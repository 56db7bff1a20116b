"""Served answers read again, when engines are idle: has traffic drifted, and would the reference have said the same?

A sampled answer costs one teacher-forced pass of the variant that gave it. That pass counts what goes into the watched
layers (drift), and writes whole distributions, which the reference then compares with its own (shadow): the KL
divergence, the share of equal first choices, and the expected acceptance, which is the quality score.
"""

import asyncio
import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qtool.engine.contract import ScoreRequest
from qtool.serve.deployment import Deployment
from qtool.serve.supervision.messages import Compare, Compared, Look, Looked

_log = logging.getLogger("qtool.serve")
_PARTS = 10_000
_WAITING = 64
_LONGEST_TOKENS = 512  # of prompt and answer together: a longer pass would hold up the clients of a busy engine
_MOST_SCALARS = 1 << 23  # of the distributions of one answer: 32 MiB
_MEMORY = 0.98  # weight of the past in the running scores: the last fifty answers count


@dataclass(frozen=True, slots=True)
class Rates:
    """Shares of the answers that are looked at for drift, and compared with the reference."""

    drift: float = 0.01
    shadow: float = 0.01


@dataclass(frozen=True, slots=True)
class Served:
    """One answer as it was served."""

    request_id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    deployment: Deployment
    shadow: bool
    observe: Callable[[float], None] = lambda score: None


@dataclass(slots=True)
class Standing:
    """The running scores of a variant against the reference."""

    answers: int = 0
    kl_nats: float = 0.0
    agreement: float = 0.0
    acceptance: float = 0.0

    def add(self, compared: Compared) -> None:
        """One answer more."""
        weight = max(1.0 - _MEMORY, 1.0 / (self.answers + 1))
        self.kl_nats += weight * (compared.kl_nats - self.kl_nats)
        self.agreement += weight * (compared.agreement - self.agreement)
        self.acceptance += weight * (compared.acceptance - self.acceptance)
        self.answers += 1

    def body(self) -> dict[str, object]:
        """The scores in numbers."""
        return {
            "answers": self.answers,
            "kl_nats": self.kl_nats,
            "top1_agreement": self.agreement,
            "expected_acceptance": self.acceptance,
        }


class SecondLook:
    """Works through sampled answers one by one; those it has no time for are counted in `lost`."""

    def __init__(self, reference: Deployment | None = None, rates: Rates | None = None) -> None:
        self.reference = reference
        self.lost = 0
        self.standings: dict[str, Standing] = {}
        self._rates = rates or Rates()
        self._waiting: asyncio.Queue[Served] = asyncio.Queue(_WAITING)
        self._task: asyncio.Task[None] | None = None
        self._folder: Path | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Opens the reference and begins to work."""
        if self.reference is not None:
            self.reference.start(loop)
            self._folder = Path(tempfile.mkdtemp(prefix="qtool-"))  # nobody else may read it
        self._task = loop.create_task(self._work())

    def close(self) -> None:
        """Ends the work and the reference."""
        if self._task is not None:
            self._task.cancel()
        if self.reference is not None:
            self.reference.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def wants(self, request_id: str, deployment: Deployment) -> tuple[bool, bool]:
        """Whether the answer to that request is looked at for drift, and compared: the same on every server."""
        drift = deployment.drift is not None and _chosen(request_id, b"drift", self._rates.drift)
        shadow = self.reference is not None and _chosen(request_id, b"shadow", self._rates.shadow)
        return drift, shadow

    def take(self, served: Served) -> None:
        """Queues an answer; lost where too many wait."""
        if not served.tokens:
            return
        try:
            self._waiting.put_nowait(served)
        except asyncio.QueueFull:
            self._lose(served, "too many answers wait")

    def body(self) -> dict[str, object]:
        """What /admin/quality tells."""
        return {"lost": self.lost, "shadow": {name: standing.body() for name, standing in self.standings.items()}}

    async def _work(self) -> None:
        while True:
            served = await self._waiting.get()
            path = self._folder / "distributions" if self._folder is not None else None
            await self._look(served, path)
            if path is not None:
                path.unlink(missing_ok=True)

    async def _look(self, served: Served, path: Path | None) -> None:
        deployment, drift = served.deployment, served.deployment.drift
        prompt, tokens = _cut(served.prompt, served.tokens)
        request = ScoreRequest(prompt, tokens)
        places = _places(len(tokens), deployment.capacity.vocabulary) if served.shadow and path is not None else ()
        layers = drift.names if drift is not None else ()
        looked = await deployment.supervisor.errand(
            lambda number: Look(number, request, places, layers, str(path) if places else "")
        )
        if not isinstance(looked, Looked) or looked.reason:
            self._lose(served, looked.reason if isinstance(looked, Looked) else "the engine went away")
            return
        if drift is not None:
            drift.add(served.request_id, len(prompt) + len(tokens), looked.inputs)
        if places and self.reference is not None:
            compared = await self.reference.supervisor.errand(
                lambda number: Compare(number, request, places, str(path))
            )
            if not isinstance(compared, Compared) or compared.reason:
                self._lose(served, compared.reason if isinstance(compared, Compared) else "the reference went away")
                return
            standing = self.standings.setdefault(deployment.variant, Standing())
            standing.add(compared)
            deployment.metrics.shadowed(standing.kl_nats, standing.agreement, standing.acceptance)
            served.observe(compared.acceptance)

    def _lose(self, served: Served, reason: str) -> None:
        self.lost += 1
        served.deployment.metrics.second_look_lost()
        fields = {"request": served.request_id, "reason": reason}
        _log.info("an answer was not looked at twice", extra={"fields": fields})


def _chosen(request_id: str, what: bytes, rate: float) -> bool:
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, person=what).digest()
    return int.from_bytes(digest, "big") % _PARTS < rate * _PARTS


def _cut(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The end of the prompt and the beginning of the answer: both readers are given the same."""
    tokens = tokens[: _LONGEST_TOKENS // 2]
    return prompt[-(_LONGEST_TOKENS - len(tokens)) :], tokens


def _places(count: int, vocabulary: int) -> tuple[int, ...]:
    """Places of an answer's tokens, spread evenly where not all may be compared."""
    most = max(min(count, _MOST_SCALARS // vocabulary), 1)
    return tuple(sorted({place * count // most for place in range(most)}))
