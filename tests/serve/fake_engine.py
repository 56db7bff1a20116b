"""An engine without weights and a vocabulary of bytes: exact, quick, and able to fail on demand."""

import threading
import time
from collections.abc import Sequence

import numpy as np
import torch

from qtool.engine.contract import EngineStatus, GenerationRequest, Reading, Scored, ScoreRequest, TokenEvent
from qtool.errors import RequestError
from qtool.kernels.log2_histogram import count_bins

BOS, EOS, VOCABULARY = 256, 257, 258
TEMPLATE = "[{role}]{content}\n"


def continuation(request: GenerationRequest) -> list[int]:
    """The tokens this engine generates: letters that depend on prompt, place and seed, or the prompt's own wish.

    A prompt that ends in `=TEXT` is continued by TEXT, byte by byte, and then the end token.
    """
    prompt = bytes(token for token in request.ids if token < 256)
    if b"=" in prompt:
        return [*prompt[prompt.rindex(b"=") + 1 :], EOS]
    seed = request.sampling.seed if request.sampling.temperature else 0
    return [97 + (sum(request.ids) * 31 + place * 7 + seed) % 26 for place in range(request.max_new_tokens)]


class FakeEngine:
    """Implements the engine protocol over `continuation`; `step_seconds` makes it slow, `fail_after` makes it die."""

    kernels: tuple[tuple[str, str], ...] = ()
    weight_bytes = cache_bytes = 0
    notes: tuple[str, ...] = ()
    device, dtype, simulated = "cpu", "float32", False

    def __init__(self, *, slots: int = 4, context: int = 128, step_seconds: float = 0.0) -> None:
        self.slots = slots
        self.context = context
        self.step_seconds = step_seconds
        self.hold = threading.Event()
        self.hold.set()
        self.die = False
        self.disagree: frozenset[int] = frozenset()
        self.peak = 0
        self.closed = False
        self._next = 0
        self._aborted: list[int] = []
        self._running: dict[int, tuple[GenerationRequest, list[int], int]] = {}

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Every token has the log-probability that generating gives it; those of `disagree` are nobody's choice."""
        return [
            Scored(
                tuple(-0.25 - (token in self.disagree) for token in request.continuation),
                tuple(token not in self.disagree for token in request.continuation),
                (1.0,) * len(request.continuation),
            )
            for request in requests
        ]

    def read(self, request: ScoreRequest, places: Sequence[int], layers: Sequence[str]) -> Reading:
        """Every token is nearly certain; of those in `disagree` the engine holds another one for likelier, 3 to 1. The
        input of every layer is token / 64, a value for each token."""
        logprobs = np.full((len(places), VOCABULARY), np.log(1e-9), dtype=np.float32)
        for row, place in enumerate(places):
            token = request.continuation[place]
            logprobs[row, token] = np.log(0.25 if token in self.disagree else 1.0)
            if token in self.disagree:
                logprobs[row, 33] = np.log(0.75)
        values = torch.tensor([*request.ids, *request.continuation]) / 64
        return Reading(logprobs, tuple((layer, count_bins(values).numpy()) for layer in layers))

    def submit(self, request: GenerationRequest) -> int:
        if len(request.ids) + request.max_new_tokens > self.context:
            raise RequestError("too long")
        assert all(0 <= token < VOCABULARY for token in request.ids)
        assert len(self._running) - len(self._aborted) < self.slots
        self._next += 1
        self._running[self._next] = (request, continuation(request), 0)
        self.peak = max(self.peak, len(self._running))
        return self._next

    def step(self) -> list[TokenEvent]:
        self.hold.wait(20)
        if self.die:
            raise ZeroDivisionError("injected")
        if self.step_seconds:
            time.sleep(self.step_seconds)
        events = [TokenEvent(number, None, None, time.monotonic(), finish="abort") for number in self._aborted]
        for number in self._aborted:
            self._running.pop(number)
        self._aborted = []
        for number, (request, tokens, place) in list(self._running.items()):
            token = tokens[place]
            now = time.monotonic()
            if token in request.stop_ids:
                del self._running[number]
                events.append(TokenEvent(number, None, -0.5, now, finish="stop"))
                continue
            last = place + 1 >= request.max_new_tokens
            if last:
                del self._running[number]
            else:
                self._running[number] = (request, tokens if place + 1 < len(tokens) else [*tokens, 33], place + 1)
            top = tuple((97 + rank, -0.5 - rank) for rank in range(request.logprobs or 0))
            events.append(TokenEvent(number, token, -0.25, now, finish="length" if last else None, top=top))
        return events

    def abort(self, request: int) -> None:
        if request in self._running and request not in self._aborted:
            self._aborted.append(request)

    def status(self) -> EngineStatus:
        running = len(self._running)
        return EngineStatus(running, 0, self.slots - running, self.slots, self.context, VOCABULARY)

    def close(self) -> None:
        self.closed = True


class FakeVocabulary:
    """Bytes as tokens, with a begin and an end token."""

    special_ids = frozenset({BOS, EOS})
    special_texts = ("<s>", "</s>")
    stop_ids = (EOS,)
    longest_token = 4
    has_chat = True
    has_tools = True
    thinks = True

    def encode(self, text: str) -> tuple[int, ...]:
        return (BOS, *text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token < 256).decode("utf-8", errors="replace")

    def token_text(self, token: int) -> str:
        return {BOS: "<s>", EOS: "</s>"}.get(token) or bytes([token]).decode("utf-8", errors="replace")

    def render_chat(self, messages: Sequence[dict[str, str]], tools: Sequence[dict[str, object]] = ()) -> str:
        known = "".join(f"[tool]{tool['function']['name']}\n" for tool in tools)
        return known + "".join(TEMPLATE.format(**message) for message in messages) + "[assistant]"

    def check_grammar(self, grammar: str) -> None:
        from qtool.errors import RequestError

        if "impossible" in grammar:
            raise RequestError("the grammar cannot be used: impossible")
