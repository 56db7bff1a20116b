"""Any server that speaks OpenAI's completions: vLLM, SGLang, llama.cpp, a paid API.

What it does: sends each request's token ids to /v1/completions and streams the answer, many at once.
When to use it: to evaluate or time what another server serves, with the same commands.
What it costs: the network; one thread a request in flight.
When it fails: where the server takes no token ids, returns no log-probabilities (scoring), or renames its tokens.
"""

import json
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from qtool.engine.contract import (
    Encode,
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
from qtool.engine.scheduling.requests import Limits, check_generation, check_score
from qtool.errors import CapacityError, RequestError, UsageError
from qtool.records.place import Place, Server

_TIMEOUT_S = 600.0
_POLL_S = 0.05
_UNKNOWN_VOCABULARY = 1 << 20
_SAFE_VOCABULARY = 256  # a tokenizer that knows every byte has at least as many ids
_DISPENSABLE = frozenset({"return_token_ids"})  # without it, times are right and ids are unknown
_DEFAULT_CONTEXT = 4096
_SCORE_ALTERNATIVES = 5  # two would do, were tokens of equal text not named alike
_SAME_LOGPROB = 1e-6
_BUSY = frozenset({429, 503})  # nothing was generated: the same request may be sent again
_PATIENCE_S = 120.0
_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length"}


def open_model(server: Place, options: EngineOptions) -> Engine:
    """The model that `server` lists first. The key is read from OPENAI_API_KEY where set."""
    if not isinstance(server, Server):
        raise UsageError(f"{server}: backend openai asks a server: give its URL where the model stands")
    return OpenAIEngine(server.url, slots=options.slots, context_tokens=options.context_tokens, encode=options.encode)


class OpenAIEngine:
    """A server behind a URL. Token ids are sent as they are, so its tokenizer must be the model's own.

    `encode` turns the text of a server that sends no ids into ids, once an answer is whole; without it each of its
    tokens is -1, which is enough to time it.
    """

    def __init__(
        self,
        url: str,
        *,
        slots: int = 32,
        context_tokens: int | None = None,
        encode: Encode | None = None,
        transport: Any = None,
    ) -> None:
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        root = url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(base_url=root, headers=headers, timeout=_TIMEOUT_S, transport=transport)
        self._model, listed = self._first_model(url)
        context = context_tokens or listed or _DEFAULT_CONTEXT
        self._limits = Limits(_UNKNOWN_VOCABULARY, context)
        self._slots = slots
        self._encode = encode
        self._events: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()
        self._flying: dict[int, threading.Event] = {}
        self._waiting: dict[int, GenerationRequest] = {}
        self._next = 0
        self._refused: set[str] = set()
        self.kernels: tuple[tuple[str, str], ...] = ()
        self.weight_bytes = self.cache_bytes = 0
        self.device, self.dtype, self.simulated = "remote", "its own", False
        self.notes = (f"served by {root}, model {self._model}",)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Log-likelihoods by echoing the prompt; the server must return `prompt_logprobs` or echoed ones."""
        for request in requests:
            check_score(request, self._limits)
        return [self._score_one(request) for request in requests]

    def read(self, request: ScoreRequest, places: Sequence[int], layers: Sequence[str]) -> Reading:
        """A server behind a URL shows neither distributions nor layers. Raises RequestError."""
        raise RequestError("a server behind a URL shows no whole distributions")

    def submit(self, request: GenerationRequest) -> int:
        """Queues the request; it is sent when one of `slots` is free."""
        check_generation(request, self._limits)
        number = self._next
        self._next += 1
        self._waiting[number] = request
        return number

    def step(self) -> list[TokenEvent]:
        """Sends what may go, and returns what has come; waits a moment where nothing has."""
        while self._waiting and len(self._flying) < self._slots:
            number = next(iter(self._waiting))
            request = self._waiting.pop(number)
            self._flying[number] = cancelled = threading.Event()
            threading.Thread(target=self._run, args=(number, request, cancelled), daemon=True).start()
        if not self._flying and self._events.empty():
            return []
        events = []
        try:
            events.append(self._events.get(timeout=_POLL_S))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        for event in events:
            if event.finish is not None:
                self._flying.pop(event.request, None)
        return events

    def abort(self, request: int) -> None:
        """Stops reading the answer, which closes the connection; a waiting request is never sent."""
        if self._waiting.pop(request, None) is not None:
            self._events.put(TokenEvent(request, None, None, time.monotonic(), finish="abort"))
            self._flying[request] = threading.Event()
        elif request in self._flying:
            self._flying[request].set()

    def status(self) -> EngineStatus:
        """Requests in flight here; what else the server does is unknown."""
        running = len(self._flying)
        return EngineStatus(
            running,
            len(self._waiting),
            max(self._slots - running, 0),
            self._slots,
            self._limits.context_tokens,
            self._vocabulary_for_prompts(),
        )

    def close(self) -> None:
        """Cancels what is under way and closes the connection."""
        self._waiting.clear()
        for cancelled in self._flying.values():
            cancelled.set()
        self._client.close()

    def _vocabulary_for_prompts(self) -> int:
        """A bound under which tokenizers have ids: made-up prompts are drawn below it."""
        return _SAFE_VOCABULARY

    def _first_model(self, url: str) -> tuple[str, int | None]:
        import httpx

        try:
            response = self._client.get("/v1/models")
            response.raise_for_status()
            first = response.json()["data"][0]
            return str(first["id"]), first.get("max_model_len")
        except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
            raise CapacityError(f"{url}: does not answer as an OpenAI server at /v1/models: {error}") from error

    def _run(self, number: int, request: GenerationRequest, cancelled: threading.Event) -> None:
        import httpx

        finish: FinishReason = "error"
        reason: str | None = "the server ended the stream without a finish reason"
        text = ""
        try:
            for choice in self._stream(request, time.monotonic() + _PATIENCE_S):
                if cancelled.is_set():
                    finish, reason = "abort", None
                    break
                if self._encode is not None and choice.get("token_ids") is None:
                    text += choice.get("text") or ""
                else:
                    self._report(number, _tokens(choice))
                if choice.get("finish_reason"):
                    finish, reason = _REASONS.get(choice["finish_reason"], "stop"), None
            if self._encode is not None and text:
                self._report(number, ((token, None) for token in self._encode(text)))
        except (httpx.HTTPError, RequestError, ValueError, KeyError, RuntimeError) as error:
            finish, reason = "error", str(error)
        self._events.put(TokenEvent(number, None, None, time.monotonic(), finish=finish, error=reason))

    def _report(self, number: int, tokens: Iterable[tuple[int, float | None]]) -> None:
        for token, logprob in tokens:
            self._events.put(TokenEvent(number, token, logprob, time.monotonic()))

    def _stream(self, request: GenerationRequest, until_s: float) -> Iterator[dict[str, Any]]:
        """The choices of one answer. A field the server does not know and that is no loss is left out from then on."""
        body = {name: value for name, value in self._body(request).items() if name not in self._refused}
        with self._client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code == 200:
                yield from _choices(response.iter_lines())
                return
            response.read()
            if response.status_code in _BUSY and time.monotonic() < until_s:
                wait_s = _retry_after(response.headers.get("retry-after"))
                time.sleep(min(wait_s, max(until_s - time.monotonic(), 0.0)))
                yield from self._stream(request, until_s)
                return
            refused = next((name for name in sorted(_DISPENSABLE & set(body)) if name in response.text), None)
            if response.status_code not in (400, 422) or refused is None:
                raise RequestError(f"the server answered {response.status_code}: {response.text[:200]}")
        self._refused.add(refused)
        yield from self._stream(request, until_s)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(request.ids),
            "max_tokens": request.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "stop": list(request.stop) or None,
            "logprobs": max(request.logprobs or 0, 1),
            "stream": True,
            "return_token_ids": True,
        }
        extra = {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "stop_token_ids": list(request.stop_ids),
            "ignore_eos": not request.stop_ids,
        }
        if sampling.repetition_penalty != 1.0:
            extra["repetition_penalty"] = sampling.repetition_penalty
        return {name: value for name, value in {**body, **extra}.items() if value not in (None, [], 0) or name in body}

    def _score_one(self, request: ScoreRequest) -> Scored:
        import httpx

        ids = [*request.ids, *request.continuation]
        body = {
            "model": self._model,
            "prompt": ids,
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": _SCORE_ALTERNATIVES,
            "return_token_ids": True,
        }
        try:
            response = self._client.post("/v1/completions", json=body)
            response.raise_for_status()
            found = response.json()["choices"][0]["logprobs"]
            own = found["token_logprobs"][len(request.ids) : len(ids)]
            tops = found["top_logprobs"][len(request.ids) : len(ids)]
            names = found["tokens"][len(request.ids) : len(ids)]
        except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
            raise RequestError(f"the server gives no log-probabilities of a prompt (echo): {error}") from error
        if len(own) != len(request.continuation) or any(value is None for value in own):
            raise RequestError("the server's tokens are not the ids that were sent; its tokenizer is another one")
        others = [_best_other(mine, name, top) for mine, name, top in zip(own, names, tops, strict=True)]
        margins = tuple(mine - other for mine, other in zip(own, others, strict=True))
        return Scored(tuple(map(float, own)), tuple(margin >= 0 for margin in margins), margins)


def _best_other(own: float, name: str, top: dict[str, float]) -> float:
    """Log-probability of the likeliest token but the chosen one, of a server that names alternatives by their text.

    Tokens of equal text (pieces of characters, padding) overwrite each other there: an entry under the chosen token's
    own text that has another value is another token. Where nothing else is left, what the chosen one leaves to all
    others together is the bound.
    """
    others = [value for text, value in top.items() if text != name or abs(value - own) > _SAME_LOGPROB]
    if others:
        return max(others)
    return math.log(max(-math.expm1(min(own, 0.0)), sys.float_info.min))


def _retry_after(header: str | None) -> float:
    """Seconds that a busy server asks to wait, 0.1 to 10."""
    try:
        return min(max(float(header or ""), 0.1), 10.0)
    except ValueError:
        return 1.0


def _choices(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The first choice of each server-sent event."""
    for line in lines:
        text = line.removeprefix("data:").strip()
        if not line.startswith("data:") or text == "[DONE]":
            continue
        event = json.loads(text)
        if "error" in event:
            raise RequestError(str(event["error"]))
        if event.get("choices"):
            yield event["choices"][0]


def _tokens(choice: dict[str, Any]) -> Iterator[tuple[int, float | None]]:
    """Token ids and log-probabilities of one chunk. A server that sends no ids gets -1 for each: times stay right."""
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or []
    ids = choice.get("token_ids")
    if ids is None:
        ids = [-1] * max(len(logprobs), 1 if choice.get("text") else 0)
    for index, token in enumerate(ids):
        yield int(token), float(logprobs[index]) if index < len(logprobs) and logprobs[index] is not None else None
