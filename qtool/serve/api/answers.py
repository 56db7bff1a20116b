"""The JSON that clients get, as the OpenAI API shapes it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.exchange import Choice
from qtool.serve.api.schema import Sampled
from qtool.serve.text.transcript import Piece, Token
from qtool.serve.text.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Envelope:
    """What every object of one answer carries: its id, when it began (Unix seconds), model and fingerprint."""

    id: str
    created: int
    model: str
    fingerprint: str
    chat: bool

    def wrap(self, choices: Sequence[object], *, chunk: bool) -> dict[str, object]:
        """An answer object around `choices`."""
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": self.id,
            "object": f"{kind}.chunk" if chunk and self.chat else kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": list(choices),
        }


def whole(envelope: Envelope, asked: Sampled, choices: Sequence[Choice], vocabulary: Vocabulary) -> dict[str, object]:
    """The answer of a request that does not stream."""
    parts = [_whole_choice(asked, choice, vocabulary) for choice in choices]
    return {**envelope.wrap(parts, chunk=False), "usage": usage(asked, choices)}


def chunk(
    envelope: Envelope, asked: Sampled, choice: Choice, piece: Piece, vocabulary: Vocabulary
) -> dict[str, object]:
    """One chunk of a stream."""
    logprobs = _logprobs(asked, piece.tokens, vocabulary)
    part: dict[str, object] = {"index": choice.index, "logprobs": logprobs, "finish_reason": piece.finish}
    if envelope.chat:
        part["delta"] = {"content": piece.text} if piece.text else {}
    else:
        part["text"] = piece.text
    if asked.return_token_ids:
        part["token_ids"] = [token.id for token in piece.tokens]
    return envelope.wrap([part], chunk=True)


def opening(envelope: Envelope, choice: Choice) -> dict[str, object]:
    """The first chunk of a streamed chat choice: who speaks."""
    delta = {"role": "assistant", "content": ""}
    part = {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}
    return envelope.wrap([part], chunk=True)


def usage(asked: Sampled, choices: Sequence[Choice]) -> dict[str, int]:
    """Token counts; a prompt with several choices counts once."""
    prompt_tokens = sum(len(choice.prompt) for choice in choices[:: asked.n])
    completion_tokens = sum(choice.transcript.generated for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event(data: object) -> bytes:
    """`data` as one server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"


def _whole_choice(asked: Sampled, choice: Choice, vocabulary: Vocabulary) -> dict[str, object]:
    transcript = choice.transcript
    part: dict[str, object] = {
        "index": choice.index,
        "logprobs": _logprobs(asked, transcript.tokens, vocabulary),
        "finish_reason": transcript.finish,
    }
    if isinstance(asked, ChatRequest):
        part["message"] = {"role": "assistant", "content": transcript.text, "refusal": None}
    else:
        part["text"] = transcript.text
    if asked.return_token_ids:  # as vLLM names them
        part["prompt_token_ids"] = list(choice.prompt)
        part["token_ids"] = [token.id for token in transcript.tokens]
    return part


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
