"""Output of a given form: which tokens may come next under a JSON schema, a regular expression or a Lark grammar.

The grammar library is llguidance (optional extra `grammar`): half a millisecond to compile, microseconds per mask.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtool.errors import MissingPackage, RequestError

if TYPE_CHECKING:  # the server checks grammars without torch
    from torch import Tensor

_MOST_CHARACTERS = 200_000
_BITS = 32
# one way to lay out JSON: a model that may write any white space can write it for ever
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Matcher:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        import torch

        self._matcher = matcher
        self._words = torch.zeros((vocabulary + _BITS - 1) // _BITS, dtype=torch.int32)
        self._bits = torch.arange(_BITS, dtype=torch.int32)

    def masked(self, logits: "Tensor") -> "Tensor":
        """`logits` [vocabulary] with minus infinity where a token would break the form."""
        import torch

        self._matcher.unsafe_compute_mask_ptr(self._words.data_ptr(), self._words.numel() * 4)
        allowed = ((self._words[:, None] >> self._bits) & 1).flatten()[: logits.shape[0]].bool()
        masked = torch.full_like(logits, float("-inf"))
        allowed = allowed.to(logits.device)
        masked[: allowed.shape[0]][allowed] = logits[: allowed.shape[0]][allowed]
        return masked

    def take(self, token: int) -> None:
        """The answer goes on with `token`, which `masked` allowed."""
        self._matcher.consume_token(token)

    @property
    def finished(self) -> bool:
        """Whether the form is complete and nothing may follow."""
        return bool(self._matcher.is_stopped())


class Grammars:
    """Compiles grammars for the tokenizer of one model folder."""

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: tuple[int, ...]) -> None:
        try:
            import llguidance.hf
        except ImportError as error:
            raise MissingPackage("llguidance", "output of a given form", "grammar") from error
        self._vocabulary = vocabulary
        self._tokenizer = llguidance.hf.from_tokenizer(
            tokenizer, n_vocab=vocabulary, eos_token=list(stop_ids) if stop_ids else None
        )

    @classmethod
    def of_folder(cls, folder: Path, vocabulary: int) -> "Grammars":
        """For the tokenizer in `folder`."""
        from qtool.models.tokenizer import load_tokenizer, stop_ids

        tokenizer = load_tokenizer(folder)
        return cls(tokenizer, vocabulary, stop_ids(folder, tokenizer))

    def check(self, grammar: str) -> None:
        """Raises RequestError where `grammar` cannot be compiled."""
        self._compiled(grammar)

    def matcher(self, grammar: str) -> Matcher:
        """A matcher at the grammar's beginning. Raises RequestError where it cannot be compiled."""
        return Matcher(self._compiled(grammar), self._vocabulary)

    def _compiled(self, grammar: str) -> Any:
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            said = str(matcher.get_error()).strip().splitlines()
            raise RequestError(f"the grammar cannot be used: {said[0][:200] if said else 'it is not valid'}")
        return matcher


def from_schema(schema: Mapping[str, Any]) -> str:
    """The grammar of JSON that satisfies `schema`. Raises RequestError where the schema cannot be used."""
    from llguidance import LLMatcher

    try:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps({**schema, "x-guidance": _LAYOUT}))
    except ValueError as error:
        raise RequestError(f"the JSON schema cannot be used: {str(error).splitlines()[0][:200]}") from error
    return _bounded(grammar)


def from_regex(pattern: str) -> str:
    """The grammar of texts that match `pattern` from beginning to end."""
    from llguidance import LLMatcher

    return _bounded(LLMatcher.grammar_from_regex(pattern))


def from_lark(text: str) -> str:
    """The grammar that `text` writes down in Lark's notation."""
    from llguidance import LLMatcher

    return _bounded(LLMatcher.grammar_from_lark(text))


def _bounded(grammar: str) -> str:
    if len(grammar) > _MOST_CHARACTERS:
        raise RequestError(f"the grammar has {len(grammar):,} characters; at most {_MOST_CHARACTERS:,} are taken")
    return str(grammar)
