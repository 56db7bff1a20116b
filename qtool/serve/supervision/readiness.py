"""Whether the server may get traffic, and if not why: one word that probes and people both read."""

from dataclasses import dataclass

_FINAL = "failed"


@dataclass(frozen=True, slots=True)
class State:
    """The phase and, where something is wrong, the reason."""

    phase: str
    reason: str = ""


class Readiness:
    """The current state: starting, what opening the engine is at, ready, restarting the engine, draining, failed."""

    def __init__(self) -> None:
        self.state = State("starting")
        self.facts: tuple[tuple[str, str], ...] = ()

    def enter(self, phase: str, reason: str = "") -> None:
        """Moves on; nothing follows a failure, and only a failure follows draining."""
        if self.state.phase == _FINAL or (self.state.phase == "draining" and phase != _FINAL):
            return
        self.state = State(phase, reason)

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        return self.state.phase == "ready"

    def body(self) -> dict[str, object]:
        """What /ready answers."""
        body: dict[str, object] = {"ready": self.ready, "phase": self.state.phase}
        if self.state.reason:
            body["reason"] = self.state.reason
        return {**body, **dict(self.facts)} if self.ready else body
