"""Golden prompts: what an engine gives for a prompt, and how far another machine's engine is from it."""

from dataclasses import dataclass

from qtool.engine.contract import Engine, GenerationRequest
from qtool.engine.drive import at_most, drive
from qtool.errors import NumericError
from qtool.records.bundle import GoldenPrompt

_ALTERNATIVES = 5
_MOST_ALTERNATIVES = 20


@dataclass(frozen=True, slots=True)
class Deviation:
    """How one golden prompt was reproduced: greatest difference of a log-probability [nats] and greedy tokens equal.

    `difference` is None where a recorded token is no longer among the most likely ones.
    """

    difference: float | None
    tolerance: float
    greedy_equal: int
    greedy_total: int

    @property
    def reproduced(self) -> bool:
        """Whether every recorded log-probability came out within the tolerance."""
        return self.difference is not None and self.difference <= self.tolerance


def observe(engine: Engine, ids: tuple[int, ...], *, new_tokens: int, tolerance: float) -> GoldenPrompt:
    """What `engine` gives for the prompt `ids`: the five most likely next tokens and `new_tokens` greedy ones."""
    alternatives = min(_ALTERNATIVES, engine.status().vocabulary)
    top, greedy = _greedy(engine, ids, new_tokens, alternatives)
    chosen = top[:alternatives]
    return GoldenPrompt(
        ids, tuple(token for token, _ in chosen), tuple(logprob for _, logprob in chosen), greedy, tolerance
    )


def compare(engine: Engine, golden: GoldenPrompt) -> Deviation:
    """How `engine` reproduces `golden`."""
    alternatives = min(_MOST_ALTERNATIVES, engine.status().vocabulary)
    top, greedy = _greedy(engine, golden.ids, max(len(golden.greedy_ids), 1), alternatives)
    now = dict(top)
    recorded = list(zip(golden.top_ids, golden.top_logprobs, strict=True))
    differences = [abs(now[token] - logprob) for token, logprob in recorded if token in now]
    complete = len(differences) == len(recorded)
    equal = sum(first == second for first, second in zip(greedy, golden.greedy_ids, strict=False))
    return Deviation(
        max(differences, default=0.0) if complete else None, golden.tolerance, equal, len(golden.greedy_ids)
    )


def _greedy(
    engine: Engine, ids: tuple[int, ...], new_tokens: int, alternatives: int
) -> tuple[tuple[tuple[int, float], ...], tuple[int, ...]]:
    """(token, log-probability) pairs of the most likely next tokens, and the greedy continuation."""
    request = GenerationRequest(ids, new_tokens, logprobs=alternatives)
    events = [advance.event for advances in drive(engine, [request], at_most(1)) for advance in advances]
    if events[-1].finish == "error":
        raise NumericError(f"a golden prompt of {len(ids)} tokens could not be answered: {events[-1].error}")
    greedy = tuple(event.token for event in events if event.token is not None)
    return events[0].top, greedy
