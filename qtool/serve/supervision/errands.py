"""Work of an engine that no client waits for: a served answer is read again, and held against another variant's.

Two engines compare whole distributions through a file of float32, which the server makes in a private folder and takes
away again: tens of megabytes do not travel through the server, and nothing in such a file can run.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.engine.contract import Engine
from qtool.errors import RequestError
from qtool.serve.supervision.messages import Compare, Compared, Errand, Look, Looked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PATIENCE_SECONDS = 2.0
_LONGEST_SECONDS = 120.0
_SHARE = 0.01  # of the time, at most, when clients keep the engine busy without a pause


class Desk:
    """The server's side: errands sent and not yet answered."""

    def __init__(self) -> None:
        self._open: dict[int, asyncio.Future[Looked | Compared | None]] = {}

    async def wait(self, number: int, send: Callable[[], None]) -> Looked | Compared | None:
        """The answer to the errand of that number; None where the engine dies or takes too long."""
        with self._waiting(number) as answer:
            send()
            try:
                return await asyncio.wait_for(answer, _LONGEST_SECONDS)
            except TimeoutError:
                return None

    def answered(self, done: Looked | Compared) -> None:
        """Hands an answer to who waits for it."""
        answer = self._open.get(done.number)
        if answer is not None and not answer.done():
            answer.set_result(done)

    def lose_all(self) -> None:
        """The engine is gone, and its errands with it."""
        for answer in self._open.values():
            if not answer.done():
                answer.set_result(None)

    @contextmanager
    def _waiting(self, number: int) -> Iterator["asyncio.Future[Looked | Compared | None]"]:
        self._open[number] = asyncio.get_running_loop().create_future()
        try:
            yield self._open[number]
        finally:
            del self._open[number]


class Errands:
    """The engine's side: errands in order. An idle engine does them at once; a busy one now and then, for a hundredth
    of its time."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Errand, float]] = deque()
        self._next_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, errand: Errand) -> None:
        """Puts it at the end."""
        self._waiting.append((errand, time.monotonic()))

    def due(self) -> bool:
        """Whether the first one has waited long enough to come between tokens of clients."""
        now = time.monotonic()
        return bool(self._waiting) and now - self._waiting[0][1] > _PATIENCE_SECONDS and now >= self._next_s

    def run(self, engine: Engine) -> Looked | Compared:
        """Does the first one."""
        errand, _ = self._waiting.popleft()
        began = time.monotonic()
        done = look(engine, errand) if isinstance(errand, Look) else compare(engine, errand)
        ended = time.monotonic()
        self._next_s = ended + (ended - began) / _SHARE
        return done


def look(engine: Engine, errand: Look) -> Looked:
    """Reads an answer of this engine again."""
    try:
        reading = engine.read(errand.request, errand.places, errand.layers)
        if errand.places:
            reading.logprobs.astype("<f4").tofile(errand.path)
    except (RequestError, OSError) as error:
        return Looked(errand.number, (), str(error))
    inputs = []
    for layer, counts in reading.inputs:
        (bins,) = counts.nonzero()
        inputs.append((layer, tuple(bins.tolist()), tuple(counts[bins].tolist())))
    return Looked(errand.number, tuple(inputs))


def compare(engine: Engine, errand: Compare) -> Compared:
    """Holds this engine, the reference, against what another one wrote."""
    import numpy as np

    try:
        own = engine.read(errand.request, errand.places, ()).logprobs
        other = np.fromfile(Path(errand.path), dtype="<f4").reshape(own.shape)
    except (RequestError, OSError, ValueError) as error:
        return Compared(errand.number, 0.0, 0.0, 0.0, str(error))
    return Compared(errand.number, *divergence(own, other))


def divergence(reference: "NDArray[np.float32]", variant: "NDArray[np.float32]") -> tuple[float, float, float]:
    """KL(reference || variant) in nats, share of equal first choices, sum of min(p, q): means over the rows."""
    import numpy as np

    p, q = np.exp(reference.astype(np.float64)), np.exp(variant.astype(np.float64))
    # where the variant gives a token no probability at all, 1e-12 keeps one such token from being the whole mean
    logs = np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(q, 1e-12))
    kl = float(np.maximum((p * logs).sum(axis=1), 0.0).mean())
    agreement = float((p.argmax(axis=1) == q.argmax(axis=1)).mean())
    return kl, agreement, float(np.minimum(p, q).sum(axis=1).mean())
