"""A model that needs no weights: an engine that answers from a table, letter by letter, and a language of letters."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from qtool.engine.contract import EngineStatus, GenerationRequest, Scored, ScoreRequest, TokenEvent
from qtool.evaluate.asking.subject import Settings
from qtool.records.model import ModelIdentity
from qtool.records.variant import Recipe, Variant
from qtool.store.run_directory import write_record

STOP = 0


@dataclass(frozen=True, slots=True)
class LetterLanguage:
    """One id a character, its code point; 0 ends."""

    stop_ids: tuple[int, ...] = (STOP,)

    def encode(self, text: str, *, bos: bool = True) -> tuple[int, ...]:
        return (1, *map(ord, text)) if bos else tuple(map(ord, text))

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def chat(self, message: str, *further: str) -> str:
        roles = itertools.cycle(("user", "assistant"))
        turns = zip(roles, (message, *further), strict=False)
        return "".join(f"<{role}>{text}" for role, text in turns) + "<assistant>"

    def answer_lead(self) -> str:
        return ""


@dataclass
class FakeEngine:
    """Follows `contract.Engine`; `reply` maps a prompt to the whole completion, written one letter a step."""

    reply: Callable[[str], str]
    context_tokens: int = 4096
    margin: float = 2.5
    asked: list[str] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    closed: bool = False
    kernels: tuple[tuple[str, str], ...] = ()
    weight_bytes: int = 0
    cache_bytes: int = 0
    notes: tuple[str, ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    simulated: bool = False
    most_running: int = 0
    _running: dict[int, tuple[GenerationRequest, str, int]] = field(default_factory=dict)
    _next: int = 0

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """A continuation that begins the reply costs 0.1 nats a letter, any other 3; the end comes after the reply."""
        return [self._score(request) for request in requests]

    def submit(self, request: GenerationRequest) -> int:
        prompt = "".join(map(chr, request.ids[1:]))
        self.asked.append(prompt)
        self._next += 1
        self._running[self._next] = (request, self.reply(prompt), 0)
        self.most_running = max(self.most_running, len(self._running))
        return self._next

    def step(self) -> list[TokenEvent]:
        events = []
        for number, (request, text, done) in list(self._running.items()):
            if done < len(text) and done < request.max_new_tokens:
                token = ord(text[done])
                top = ((token, -0.1), (token + 1, -0.1 - self.margin))
                written = text[: done + 1]
                stopped = any(stop in written for stop in request.stop)
                last = done + 1 == request.max_new_tokens
                finish = "stop" if stopped else "length" if last else None
                events.append(TokenEvent(number, token, -0.1, time.monotonic(), finish, top=top))
                self._running[number] = (request, text, done + 1)
            else:
                finish = "stop"
                events.append(TokenEvent(number, None, None, time.monotonic(), "stop"))
            if finish is not None:
                del self._running[number]
        return events

    def abort(self, request: int) -> None:
        self._running.pop(request, None)

    def status(self) -> EngineStatus:
        return EngineStatus(len(self._running), 0, 32, 32, self.context_tokens, 1 << 20)

    def close(self) -> None:
        self.closed = True

    def _score(self, request: ScoreRequest) -> Scored:
        prompt = "".join(map(chr, request.ids[1:]))
        ends = request.continuation[-1] == STOP
        text = "".join(map(chr, request.continuation[:-1] if ends else request.continuation))
        given = self.reply(prompt) == text if ends else bool(text.strip()) and self.reply(prompt).startswith(text)
        self.scored.append(prompt)
        cost = 0.1 if given else 3.0
        count = len(request.continuation)
        margin = self.margin if given else -1.0
        return Scored((-cost,) * count, (given,) * count, (margin,) * count)


@dataclass
class Workshop:
    """Makes model folders and opens fake engines for them; `engines` are those opened so far."""

    root: Path
    replies: dict[str, Callable[[str], str]] = field(default_factory=dict)
    engines: list[FakeEngine] = field(default_factory=list)
    options: dict[str, object] = field(default_factory=dict)

    def model(
        self,
        name: str,
        reply: Callable[[str], str],
        *,
        scheme: str = "base",
        tokenizer: str = "letters",
        base_weights: str = "w",
    ) -> Path:
        """A variant folder called `name` whose engine answers with `reply`."""
        folder = self.root / "runs" / "r" / "variants" / name
        folder.mkdir(parents=True, exist_ok=True)
        base = ModelIdentity("base", "made here", None, "none", base_weights, tokenizer, "float32", 1, 1)
        write_record(
            folder / "variant.json",
            Variant(
                format_version=1, name=name, base=base, recipe=Recipe(scheme=scheme, method="rtn"),  # type: ignore[arg-type]
                weights_digest=f"weights of {name}", tokenizer_digest=tokenizer, calibration_digest=None, layers=(),
                verification=None, fallbacks=0, bytes=1, seconds=0.0, peak_memory_bytes=1, qtool_version="0",
            ),
        )  # fmt: skip
        self.replies[name] = reply
        return folder

    def open(self, folder: Path, settings: Settings) -> tuple[FakeEngine, LetterLanguage]:
        """What `open_folder` is to the stage."""
        engine = FakeEngine(self.replies[folder.name], **self.options)  # type: ignore[arg-type]
        self.engines.append(engine)
        return engine, LetterLanguage()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)
