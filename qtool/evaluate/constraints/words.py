"""Constraints on what a text says: keywords, letters, lengths, case, language."""

import re
from collections import Counter
from collections.abc import Mapping

from qtool.errors import DataError
from qtool.evaluate.constraints.script import is_in

Arguments = Mapping[str, object]

_SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMrs)(?<!\bDr)(?<!\be\.g)(?<!\bi\.e)[.!?。！？]+[\"')\]]*(?=\s|$)")


def existence(text: str, arguments: Arguments) -> bool:
    return all(re.search(word, text, re.IGNORECASE) is not None for word in texts(arguments, "keywords"))


def frequency(text: str, arguments: Arguments) -> bool:
    found = len(re.findall(string(arguments, "keyword"), text, re.IGNORECASE))
    return holds(found, integer(arguments, "frequency"), arguments.get("relation"))


def forbidden_words(text: str, arguments: Arguments) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in texts(arguments, "forbidden_words"))


def letter_frequency(text: str, arguments: Arguments) -> bool:
    found = Counter(text.lower())[string(arguments, "letter").lower()]
    return holds(found, integer(arguments, "let_frequency"), arguments.get("let_relation"))


def number_words(text: str, arguments: Arguments) -> bool:
    return holds(len(re.findall(r"\w+", text)), integer(arguments, "num_words"), arguments.get("relation"))


def number_sentences(text: str, arguments: Arguments) -> bool:
    return holds(sentences(text), integer(arguments, "num_sentences"), arguments.get("relation"))


def capital_word_frequency(text: str, arguments: Arguments) -> bool:
    found = sum(word.isupper() for word in re.findall(r"\w[\w'-]*", text))
    return holds(found, integer(arguments, "capital_frequency"), arguments.get("capital_relation"))


def english_capital(text: str, arguments: Arguments) -> bool:
    return text.isupper() and is_in(text, "en")


def english_lowercase(text: str, arguments: Arguments) -> bool:
    return text.islower() and is_in(text, "en")


def response_language(text: str, arguments: Arguments) -> bool:
    return is_in(text, string(arguments, "language"))


def no_comma(text: str, arguments: Arguments) -> bool:
    return "," not in text


def sentences(text: str) -> int:
    """How many sentences `text` has; a rest without a full stop is one too."""
    ends = list(_SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(re.search(r"\w", rest))


def holds(found: int, wanted: int, relation: object) -> bool:
    """Whether `found` keeps to IFEval's relation, "less than" or "at least" (which is meant where none is given)."""
    if relation not in (None, "less than", "at least"):
        raise DataError(f"the relation {relation!r} is not 'less than' or 'at least'")
    return found < wanted if relation == "less than" else found >= wanted


def string(arguments: Arguments, name: str) -> str:
    """The argument `name`, a text. Raises DataError where it is none."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise DataError(f"the argument {name!r} must be a text, not {value!r}")
    return value


def texts(arguments: Arguments, name: str) -> tuple[str, ...]:
    """The argument `name`, a list of texts. Raises DataError where it is none."""
    value = arguments.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(entry, str) for entry in value):
        raise DataError(f"the argument {name!r} must be a list of texts, not {value!r}")
    return tuple(value)


def integer(arguments: Arguments, name: str) -> int:
    """The argument `name`, a whole number (public files store some as 3.0). Raises DataError where it is none."""
    value = arguments.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise DataError(f"the argument {name!r} must be a whole number, not {value!r}")
    return int(value)
