"""transformers' own forward, one request after another: the oracle.

What it does: feeds each request alone through the model with transformers' dynamic cache; no batching.
When to use it: to check the `qtool` backend, or for a model whose attention that one cannot run.
What it costs: the time of every request one after another; the weights as `qtool` loads them.
When it fails: never for a causal model that transformers itself runs.
"""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from qtool.data.probe_text import spread_ids
from qtool.engine.contract import (
    Engine,
    EngineOptions,
    EngineStatus,
    FinishReason,
    GenerationRequest,
    Reading,
    Scored,
    ScoreRequest,
    TokenEvent,
)
from qtool.engine.layers.own_forward import feed, use_attention, whole_pass
from qtool.engine.layers.weights import LoadedModel, load_model
from qtool.engine.scheduling.requests import Limits, check_generation, check_score
from qtool.engine.scheduling.sampler import Choice, Chooser, choose
from qtool.engine.scheduling.scoring import measure_logits
from qtool.engine.scheduling.stop import Decode, StopWatch, folder_decode
from qtool.engine.scheduling.watched_inputs import log_probabilities, watched_inputs
from qtool.errors import RequestError
from qtool.machine.device import choose_device, choose_dtype
from qtool.models.checkpoint import read_config
from qtool.models.foreign import FOREIGN
from qtool.models.foreign import reason as why

_PROBE_TOKENS = 9
_TOLERATED = 0.1  # of the logits' size: inputs in 8 bits give some hundredths, a wrong position or state far more


def open_model(folder: Path, options: EngineOptions) -> Engine:
    """The model of `folder`, run by transformers."""
    device = choose_device(options.device)
    loaded = load_model(folder, dtype=choose_dtype(options.dtype, read_config(folder), device), device=device)
    return serve_model(loaded, folder, options)


def serve_model(loaded: LoadedModel, folder: Path, options: EngineOptions, *, note: str = "") -> "TransformersEngine":
    """A model that is loaded already; `note` says why it is run this way."""
    return TransformersEngine(
        loaded.model,
        device=choose_device(options.device),
        context_tokens=options.context_tokens,
        decode=folder_decode(folder),
        loaded=loaded,
        note=note,
    )


class TransformersEngine:
    """One request at a time; the others wait."""

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device,
        context_tokens: int | None = None,
        decode: Decode | None = None,
        loaded: LoadedModel | None = None,
        note: str = "",
    ) -> None:
        self._model: Any | None = model
        self._device = device
        self._decode = decode
        self.kernels = loaded.kernels if loaded else ()
        self.weight_bytes = loaded.weight_bytes if loaded else 0
        self.cache_bytes = 0  # it grows with the one request that runs
        self.device, self.dtype = str(device), str(model.dtype).removeprefix("torch.")
        self.simulated = loaded.simulated if loaded else False
        self.notes = (f"run by transformers, one request at a time: {note}",) if note else ()
        use_attention(model, "eager")
        self._remembers = cache_is_right(model, device)
        if not self._remembers:
            self.notes = (
                *self.notes,
                "transformers' cache of it is wrong or missing: every token reads the whole text",
            )
        config = model.config.get_text_config(decoder=True)
        longest = int(getattr(config, "max_position_embeddings", 0) or 2048)
        self._limits = Limits(int(config.vocab_size), min(context_tokens or longest, longest))
        self._numbers = itertools.count()
        self._queue: dict[int, GenerationRequest] = {}
        self._current: _Alone | None = None
        self._aborted: list[int] = []

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """One forward pass a request over prompt and continuation."""
        for request in requests:
            check_score(request, self._limits)
        return [self._score_one(request) for request in requests]

    @torch.inference_mode()
    def _score_one(self, request: ScoreRequest) -> Scored:
        ids = torch.tensor([[*request.ids, *request.continuation[:-1]]], device=self._device)
        logits = whole_pass(self._open(), ids)[0, len(request.ids) - 1 :]
        chosen, greedy, margins = measure_logits(logits, torch.tensor(request.continuation, device=self._device))
        return Scored(tuple(chosen), tuple(greedy), tuple(margins))

    @torch.inference_mode()
    def read(self, request: ScoreRequest, places: Sequence[int], layers: Sequence[str]) -> Reading:
        """Distributions and layer inputs of one teacher-forced pass."""
        check_score(request, self._limits)
        ids = torch.tensor([[*request.ids, *request.continuation[:-1]]], device=self._device)
        with watched_inputs(self._open(), layers) as watched:
            logits = whole_pass(self._open(), ids)[0, len(request.ids) - 1 :]
        return Reading(log_probabilities(logits[list(places)]), watched.counts())

    def submit(self, request: GenerationRequest) -> int:
        """Queues the request. Raises RequestError for it alone."""
        self._open()
        check_generation(request, self._limits)
        if request.stop and self._decode is None:
            raise RequestError("stop strings need a tokenizer, and this model folder has none; use stop_ids")
        number = next(self._numbers)
        self._queue[number] = request
        return number

    def step(self) -> list[TokenEvent]:
        """One token of the request whose turn it is."""
        events = self._drop_aborted()
        if self._current is None and self._queue:
            number = next(iter(self._queue))
            self._current = _Alone(number, self._queue.pop(number), self._decode)
        if self._current is None:
            return events
        event = self._current.advance(self._open(), self._device, remembers=self._remembers)
        if event.finish is not None:
            self._current = None
        return [*events, event]

    def abort(self, request: int) -> None:
        """Ends a request at the next step."""
        if request in self._queue or (self._current is not None and self._current.number == request):
            self._aborted.append(request)

    def status(self) -> EngineStatus:
        """How many wait; one runs at most."""
        self._open()
        running = int(self._current is not None)
        return EngineStatus(
            running, len(self._queue), 1 - running, 1, self._limits.context_tokens, self._limits.vocabulary
        )

    def close(self) -> None:
        """Frees the weights."""
        self._model = None
        self._current = None
        self._queue.clear()

    def _drop_aborted(self) -> list[TokenEvent]:
        now = time.monotonic()
        dropped = sorted(set(self._aborted))
        self._aborted.clear()
        for number in dropped:
            self._queue.pop(number, None)
            if self._current is not None and self._current.number == number:
                self._current = None
        return [TokenEvent(number, None, None, now, finish="abort") for number in dropped]

    def _open(self) -> Any:
        if self._model is None:
            raise RequestError("the engine is closed")
        return self._model


@torch.inference_mode()
def cache_is_right(model: Any, device: torch.device) -> bool:
    """Whether tokens fed one by one behind transformers' cache give what one whole pass over them gives."""
    config = model.config.get_text_config(decoder=True)
    ids = spread_ids(int(config.vocab_size), tokens=_PROBE_TOKENS)
    probe = torch.tensor([ids], device=device)
    expected = whole_pass(model, probe)[0].float()
    try:
        found, cache = feed(model, probe[:, :-2], None)
        logits = [found[0]]
        for place in (-2, -1):
            found, cache = feed(model, probe[:, [place]], cache)
            logits.append(found[0])
    except FOREIGN:
        return False
    error = (torch.cat(logits).float() - expected).square().mean().sqrt()
    return bool(error <= _TOLERATED * expected.square().mean().sqrt())


class _Alone:
    """The request that runs, with its own cache."""

    def __init__(self, number: int, request: GenerationRequest, decode: Decode | None) -> None:
        self.number = number
        self._request = request
        self._chooser = Chooser(request.sampling, request.logprobs)
        self._watch = StopWatch(request.stop, decode) if request.stop and decode else None
        self._cache: Any = None
        self._output: list[int] = []

    @torch.inference_mode()
    def advance(self, model: Any, device: torch.device, *, remembers: bool) -> TokenEvent:
        """Feeds the prompt or the last token and chooses the next."""
        try:
            if remembers:
                fed = self._request.ids if self._cache is None else self._output[-1:]
                found, self._cache = feed(model, torch.tensor([list(fed)], device=device), self._cache)
            else:
                found = whole_pass(model, torch.tensor([[*self._request.ids, *self._output]], device=device))
        except (*FOREIGN, MemoryError) as error:
            reason = f"the forward pass failed: {why(error)}"
            return TokenEvent(self.number, None, None, time.monotonic(), finish="error", error=reason)
        return self._settle(choose(found[:, -1], [self._chooser], [self._request.ids], [self._output])[0])

    def _settle(self, choice: Choice) -> TokenEvent:
        now = time.monotonic()
        if choice.token < 0:
            reason = "the model produced NaN or infinite logits"
            return TokenEvent(self.number, None, None, now, finish="error", error=reason)
        if choice.token in self._request.stop_ids:
            return TokenEvent(self.number, None, choice.logprob, now, finish="stop")
        self._output.append(choice.token)
        finish: FinishReason | None = None
        if self._watch is not None and self._watch.reached(self._output):
            finish = "stop"
        elif len(self._output) >= self._request.max_new_tokens:
            finish = "length"
        return TokenEvent(self.number, choice.token, choice.logprob, now, finish=finish, top=choice.top)
