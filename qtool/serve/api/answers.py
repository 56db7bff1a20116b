"""The JSON that clients get, as the OpenAI API shapes it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.refusal import Refused
from qtool.serve.api.schema import Sampled
from qtool.serve.text.exchange import Choice, Exchange
from qtool.serve.text.parts import Splitter
from qtool.serve.text.transcript import Piece, Token
from qtool.serve.text.vocabulary import Vocabulary


class Shape(Protocol):
    """How the answer of one endpoint is written: whole, or as events in this order."""

    def whole(self, exchange: Exchange) -> dict[str, object]: ...

    def begin(self, exchange: Exchange) -> bytes: ...

    def piece(self, choice: Choice, piece: Piece) -> bytes: ...

    def end(self, exchange: Exchange) -> bytes: ...

    def failure(self, refused: Refused) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every object of one answer carries: its id, when it began (Unix seconds), model and fingerprint."""

    id: str
    created: int
    model: str
    fingerprint: str


class CompletionShape:
    """Answers of /v1/completions and /v1/chat/completions."""

    def __init__(self, envelope: Envelope, asked: Sampled, vocabulary: Vocabulary) -> None:
        self._envelope = envelope
        self._asked = asked
        self._vocabulary = vocabulary
        self._chat = isinstance(asked, ChatRequest)

    def whole(self, exchange: Exchange) -> dict[str, object]:
        """The answer of a request that does not stream."""
        parts = [self._choice(exchange, choice) for choice in exchange.choices]
        return {**self._wrap(parts, chunk=False), "usage": usage(exchange)}

    def begin(self, exchange: Exchange) -> bytes:
        """The first chunk of each streamed chat choice: who speaks."""
        if not self._chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        parts = (
            {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
            for choice in exchange.choices
        )
        return b"".join(event(self._wrap([part], chunk=True)) for part in parts)

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """One chunk of a stream; nothing where a mark may be beginning."""
        part: dict[str, object] = {
            "index": choice.index,
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish,
        }
        if self._chat:
            delta = _delta(choice, piece)
            if not delta and piece.finish is None and part["logprobs"] is None:
                return b""
            part["delta"] = delta
            part["finish_reason"] = _finish(piece.finish, choice.splitter)
        else:
            part["text"] = piece.text
        if self._asked.return_token_ids:
            part["token_ids"] = [token.id for token in piece.tokens]
        return event(self._wrap([part], chunk=True))

    def end(self, exchange: Exchange) -> bytes:
        """Token counts where they were asked for, and the end mark."""
        last = b""
        if self._asked.wants_usage:
            last = event({**self._wrap([], chunk=True), "usage": usage(exchange)})
        return last + b"data: [DONE]\n\n"

    def failure(self, refused: Refused) -> bytes:
        """An error event; no end mark follows it."""
        return event(refused.body())

    def _wrap(self, choices: Sequence[object], *, chunk: bool) -> dict[str, object]:
        kind = "chat.completion" if self._chat else "text_completion"
        return {
            "id": self._envelope.id,
            "object": f"{kind}.chunk" if chunk and self._chat else kind,
            "created": self._envelope.created,
            "model": self._envelope.model,
            "system_fingerprint": self._envelope.fingerprint,
            "choices": list(choices),
        }

    def _choice(self, exchange: Exchange, choice: Choice) -> dict[str, object]:
        transcript = choice.transcript
        part: dict[str, object] = {
            "index": choice.index,
            "logprobs": self._logprobs(transcript.tokens),
            "finish_reason": transcript.finish,
        }
        if self._chat:
            splitter = exchange.splitter()
            part["message"] = message(transcript.text, splitter)
            part["finish_reason"] = _finish(transcript.finish, splitter)
        else:
            part["text"] = transcript.text
        if self._asked.return_token_ids:  # as vLLM names them
            part["prompt_token_ids"] = list(choice.prompt)
            part["token_ids"] = [token.id for token in transcript.tokens]
        return part

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, object] | None:
        return _logprobs(self._asked, tokens, self._vocabulary)


def message(text: str, splitter: Splitter) -> dict[str, object]:
    """The assistant message that `text` is, its parts told apart by a fresh `splitter`."""
    parts = [*splitter.feed(text), *splitter.end()]
    content = "".join(part for kind, part in parts if kind == "content")
    reasoning = "".join(part for kind, part in parts if kind == "reasoning")
    found: dict[str, object] = {"role": "assistant", "content": content, "refusal": None}
    if splitter.calls:
        found["content"] = content or None
        found["tool_calls"] = [call.body() for call in splitter.calls]
    return {**found, "reasoning_content": reasoning} if reasoning else found


def usage(exchange: Exchange) -> dict[str, int]:
    """Token counts; a prompt with several choices counts once."""
    choices = exchange.choices
    prompt_tokens = sum(len(choice.prompt) for choice in choices[:: exchange.asked.n])
    completion_tokens = sum(choice.transcript.generated for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event(data: object, name: str = "") -> bytes:
    """`data` as one server-sent event, with a name where the API gives events names."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"


def _delta(choice: Choice, piece: Piece) -> dict[str, object]:
    """What a piece adds to a streamed message."""
    splitter = choice.splitter
    known = len(splitter.calls)
    parts = splitter.feed(piece.text)
    if piece.finish is not None:
        parts += splitter.end()
    delta: dict[str, object] = {}
    for name, kind in (("content", "content"), ("reasoning_content", "reasoning")):
        text = "".join(part for found, part in parts if found == kind)
        if text:
            delta[name] = text
    if len(splitter.calls) > known:
        delta["tool_calls"] = [call.body(known + index) for index, call in enumerate(splitter.calls[known:])]
    return delta


def _finish(finish: str | None, splitter: Splitter) -> str | None:
    return "tool_calls" if finish == "stop" and splitter.calls else finish


def _logprobs(asked: Sampled, tokens: Sequence[Token], vocabulary: Vocabulary) -> dict[str, object] | None:
    if asked.alternatives is None:
        return None
    if isinstance(asked, ChatRequest):
        return {"content": [_chat_logprob(token, asked.alternatives, vocabulary) for token in tokens]}
    return {
        "tokens": [vocabulary.token_text(token.id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_by_text(token, asked.alternatives, vocabulary) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def _by_text(token: Token, alternatives: int, vocabulary: Vocabulary) -> dict[str, float]:
    """Alternatives by their text, the most likely first. Tokens of equal text (pieces of characters, padding) would
    overwrite each other in a table: all but the first are named by id, as vLLM's `return_tokens_as_token_ids` does.
    The chosen token keeps its text."""
    named: dict[str, float] = {}
    chosen = vocabulary.token_text(token.id)
    for id_, logprob in token.top[:alternatives]:
        text = vocabulary.token_text(id_)
        taken = text in named or (text == chosen and id_ != token.id)
        named[f"token_id:{id_}" if taken else text] = logprob
    return named


def _chat_logprob(token: Token, alternatives: int, vocabulary: Vocabulary) -> dict[str, object]:
    top = [_scored(id_, logprob, vocabulary) for id_, logprob in token.top[:alternatives]]
    return {**_scored(token.id, token.logprob, vocabulary), "top_logprobs": top}


def _scored(token: int, logprob: float, vocabulary: Vocabulary) -> dict[str, object]:
    text = vocabulary.token_text(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8"))}
