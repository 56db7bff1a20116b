"""A written variant run by the engine that will serve it, before anyone calls it done."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qtool.engine.contract import Engine, GenerationRequest, TokenEvent
from qtool.engine.drive import at_most, drive
from qtool.engine.load import open_engine
from qtool.errors import CapacityError, QtoolError

NEW_TOKENS = 200  # of all prompts together
_SECONDS = 60.0  # after which a slow machine has shown enough


@dataclass(slots=True)
class Trial:
    """What the engine wrote behind each prompt, and what it said of itself; `problem` is why it could not."""

    prompts: tuple[tuple[int, ...], ...]
    written: list[list[int]]
    notes: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def tokens(self) -> int:
        """Tokens that the engine generated."""
        return sum(map(len, self.written))

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """Each prompt and what was written behind it."""
        return [(*prompt, *ids) for prompt, ids in zip(self.prompts, self.written, strict=True)]


def run_in_engine(folder: Path, prompts: Sequence[Sequence[int]], *, seconds: float = _SECONDS) -> Trial:
    """All `prompts` continued greedily and at once, by 200 tokens together or what `seconds` allow."""
    trial = Trial(tuple(tuple(prompt) for prompt in prompts), [[] for _ in prompts])
    each = -(-NEW_TOKENS // len(prompts))
    context = max(map(len, prompts)) + each
    try:
        engine = open_engine(folder, slots=len(prompts), context_tokens=context)
    except CapacityError as error:
        trial.notes.append(f"not run by the engine: {error}")
        return trial
    except QtoolError as error:
        trial.problem = f"the engine cannot open it: {error}"
        return trial
    try:
        trial.notes += engine.notes
        _generate(engine, trial, each, deadline=time.monotonic() + seconds)
    finally:
        engine.close()
    return trial


def _generate(engine: Engine, trial: Trial, each: int, *, deadline: float) -> None:
    requests = [GenerationRequest(ids, each) for ids in trial.prompts]
    for advances in drive(engine, requests, at_most(len(requests))):
        for advance in advances:
            _note(trial, advance.index, advance.event)
        if time.monotonic() > deadline:
            trial.notes.append(f"run by the engine for {trial.tokens} tokens, not {NEW_TOKENS}: they took too long")
            return


def _note(trial: Trial, row: int, event: TokenEvent) -> None:
    if event.token is not None:
        trial.written[row].append(event.token)
    if event.finish == "error":
        trial.problem = f"the engine fails on prompt {row + 1}: {event.error}"
