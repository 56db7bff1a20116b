"""One answer as it grows: tokens to text piece by piece, stop strings never shown, not even in part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtool.engine.contract import FinishReason, TokenEvent

if TYPE_CHECKING:
    from qtool.serve.text.vocabulary import Vocabulary

_CONTEXT_TOKENS = 6
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token with its log-probability, its alternatives, and where its text begins in the answer."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What may be shown now: new text, the tokens it came from, and how the answer ended if it did."""

    text: str
    tokens: tuple[Token, ...]
    finish: FinishReason | None


class Transcript:
    """Decodes one answer. The end of the prompt is decoded along, so that spaces between words come out right."""

    def __init__(self, prompt: Sequence[int], stops: Sequence[str], vocabulary: "Vocabulary") -> None:
        self._vocabulary = vocabulary
        self._stops = tuple(stops)
        self._held = max((len(stop) for stop in stops), default=1) - 1
        self._ids = list(prompt[-_CONTEXT_TOKENS:])
        self._shown_ids = 0
        self._read_ids = len(self._ids)
        self._pending_text = ""
        self._pending_tokens: list[Token] = []
        self.text = ""
        self.tokens: list[Token] = []
        self.generated = 0
        self.finish: FinishReason | None = None

    def take(self, event: TokenEvent) -> Piece | None:
        """The piece that `event` makes showable, or None. A stop string found here ends the answer at once."""
        if event.token is not None:
            offset = len(self.text) + len(self._pending_text)
            token = Token(event.token, event.logprob or 0.0, event.top, offset)
            self._pending_tokens.append(token)
            self.tokens.append(token)
            self.generated += 1
            self._ids.append(event.token)
            self._pending_text += self._new_text(last=event.finish is not None)
        elif event.finish is not None:
            self._pending_text += self._new_text(last=True)
        found = [place for stop in self._stops if (place := self._pending_text.find(stop)) >= 0]
        if found:
            self._cut(min(found))
            return self._release(0, "stop")
        return self._release(0 if event.finish else self._held, event.finish)

    def end(self) -> Piece | None:
        """Ends the answer here, as its length would: what was held back is shown."""
        self._pending_text += self._new_text(last=True)
        return self._release(0, "length")

    def _cut(self, place: int) -> None:
        """Forgets text from `place` of the pending text on, and the tokens that begin there or later."""
        self._pending_text = self._pending_text[:place]
        end = len(self.text) + place
        self._pending_tokens = [token for token in self._pending_tokens if token.offset < end]
        self.tokens = [token for token in self.tokens if token.offset < end]

    def _new_text(self, *, last: bool) -> str:
        """Text of the ids not yet read; nothing while they end inside a character, unless they are the last."""
        before = self._vocabulary.decode(self._ids[self._shown_ids : self._read_ids])
        now = self._vocabulary.decode(self._ids[self._shown_ids :])
        if len(now) <= len(before) or (now.endswith(_INCOMPLETE) and not last):
            return ""
        self._shown_ids, self._read_ids = self._read_ids, len(self._ids)
        return now[len(before) :]

    def _release(self, held: int, finish: FinishReason | None) -> Piece | None:
        cut = max(len(self._pending_text) - held, 0)
        text, self._pending_text = self._pending_text[:cut], self._pending_text[cut:]
        self.text += text
        self.finish = finish
        if not text and finish is None:
            return None
        tokens, self._pending_tokens = tuple(self._pending_tokens), []
        return Piece(text, tokens, finish)
