"""Text to ids and back for the server: the bundle's own tokenizer and chat template, nothing from a client."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from qtool.engine.grammar import Grammars
from qtool.errors import ModelError
from qtool.serve.text.parts import THINK_CLOSE, TOOL_OPEN


class Vocabulary(Protocol):
    """What the server needs of a tokenizer. `encode` and `render_chat` run in a thread of their own."""

    special_ids: frozenset[int]
    special_texts: tuple[str, ...]
    stop_ids: tuple[int, ...]
    longest_token: int
    has_chat: bool
    has_tools: bool
    thinks: bool

    def encode(self, text: str) -> tuple[int, ...]: ...

    def check_grammar(self, grammar: str) -> None: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def token_text(self, token: int) -> str: ...

    def render_chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str: ...


class BundleVocabulary:
    """The fast tokenizer of a bundle folder; its chat template runs in transformers' sandbox."""

    def __init__(self, folder: Path) -> None:
        from qtool.models.tokenizer import load_tokenizer, stop_ids

        self._tokenizer: Any = load_tokenizer(folder)
        self.special_ids = frozenset(self._tokenizer.all_special_ids)
        self.special_texts = tuple(self._tokenizer.all_special_tokens)
        self.stop_ids = stop_ids(folder, self._tokenizer)
        self.longest_token = max(len(text) for text in self._tokenizer.get_vocab())
        self.has_chat = bool(self._tokenizer.chat_template)
        template = str(self._tokenizer.chat_template or "")
        self.has_tools = "tools" in template and TOOL_OPEN in template
        self.thinks = THINK_CLOSE in template
        self._grammars: Grammars | None = None
        self._folder = folder

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of `text`, with the BOS token where the tokenizer uses one."""
        from qtool.models.tokenizer import encode

        return encode(self._tokenizer, text)

    def check_grammar(self, grammar: str) -> None:
        """Raises RequestError where `grammar` cannot be used, MissingPackage where none can."""
        if self._grammars is None:
            self._grammars = Grammars(self._tokenizer, len(self._tokenizer), self.stop_ids)
        self._grammars.check(grammar)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens; an incomplete character shows as U+FFFD at the end."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def token_text(self, token: int) -> str:
        """One token as text, special ones spelled out."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def render_chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt text of a conversation, ending where the assistant's answer begins.

        Raises ModelError where the template refuses, with whatever exception it raises inside.
        """
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            said = str(error).strip().splitlines()
            raise ModelError(f"the chat template refuses these messages: {said[0] if said else error!r}") from error
        return str(rendered)
