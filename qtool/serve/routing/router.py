"""Who answers a request: the rungs of the ladder in order, a canary where there is one; whose breaker allows.

Overload steps down: a rung that has no room hands the request to the next. Errors, slowness and bad answers open a
rung's breaker, and then it is passed over, whichever way the ladder goes. The last rung may be another server.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qtool.serve.deployment import Deployment
from qtool.serve.routing.canary import Canary
from qtool.serve.routing.upstream import Upstream

Backend = Deployment | Upstream


@dataclass(frozen=True, slots=True)
class Rung:
    """One step: its place (0 is the best) and who answers there."""

    place: int
    backend: Backend


class Router:
    """`rungs` from the best to the last resort; `candidate` is compared with the first rung by `canary`."""

    def __init__(
        self, rungs: Sequence[Backend], *, candidate: Backend | None = None, canary: Canary | None = None
    ) -> None:
        self._rungs = tuple(rungs)
        self.candidate = candidate
        self.canary = canary

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All of them, the first rung first."""
        return (*self._rungs, self.candidate) if self.candidate is not None else self._rungs

    def rungs(self, identity: str) -> Iterator[Rung]:
        """Who may answer the request of `identity`, the first choice first."""
        first: list[Backend] = []
        if self.canary is not None and self.candidate is not None and self.canary.chooses_candidate(identity):
            first = [self.candidate]
        for place, backend in enumerate([*first, *self._rungs]):
            if backend.breaker.allows():
                yield Rung(place - len(first), backend)
