"""A model folder's tokenizer as the one small thing that scorers need."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtool.models import tokenizer as tokenizers


@dataclass(frozen=True, slots=True)
class FolderLanguage:
    """`contract.Language` of a model folder."""

    tokenizer: Any
    stop_ids: tuple[int, ...]

    def encode(self, text: str, *, bos: bool = True) -> tuple[int, ...]:
        return tokenizers.encode(self.tokenizer, text, bos=bos)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def chat(self, message: str, *further: str) -> str:
        roles = itertools.cycle(("user", "assistant"))
        turns = [{"role": role, "content": text} for role, text in zip(roles, (message, *further), strict=False)]
        return self._rendered(turns, open_answer=True)

    def answer_lead(self) -> str:
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}]
        asked, whole = self._rendered(turns[:1], open_answer=True), self._rendered(turns, open_answer=False)
        lead, found, _ = whole.removeprefix(asked).partition("answer")
        return lead if found and whole.startswith(asked) else ""

    def _rendered(self, turns: list[dict[str, str]], *, open_answer: bool) -> str:
        text = tokenizers.render_chat(self.tokenizer, turns, add_generation_prompt=open_answer)
        # `encode` begins with one BOS whether the template spelled it out or not
        return text.removeprefix(self.tokenizer.bos_token) if tokenizers.uses_bos(self.tokenizer) else text


def load_language(folder: Path) -> FolderLanguage:
    """The language of the model in `folder`. Raises ModelError where it has no usable tokenizer."""
    tokenizer = tokenizers.load_tokenizer(folder)
    return FolderLanguage(tokenizer=tokenizer, stop_ids=tokenizers.stop_ids(folder, tokenizer))
