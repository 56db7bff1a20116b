"""Which constraint is which, and whether a text keeps all that it was given."""

import json
from collections.abc import Callable

from qtool.errors import DataError
from qtool.evaluate.constraints import form, words
from qtool.evaluate.constraints.words import Arguments

Constraint = tuple[str, dict[str, object]]

CHECKS: dict[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": words.existence,
    "keywords:frequency": words.frequency,
    "keywords:forbidden_words": words.forbidden_words,
    "keywords:letter_frequency": words.letter_frequency,
    "language:response_language": words.response_language,
    "length_constraints:number_sentences": words.number_sentences,
    "length_constraints:number_paragraphs": form.number_paragraphs,
    "length_constraints:number_words": words.number_words,
    "length_constraints:nth_paragraph_first_word": form.nth_paragraph_first_word,
    "detectable_content:number_placeholders": form.number_placeholders,
    "detectable_content:postscript": form.postscript,
    "detectable_format:number_bullet_lists": form.number_bullet_lists,
    "detectable_format:constrained_response": form.constrained_response,
    "detectable_format:number_highlighted_sections": form.number_highlighted_sections,
    "detectable_format:multiple_sections": form.multiple_sections,
    "detectable_format:json_format": form.json_format,
    "detectable_format:title": form.title,
    "combination:two_responses": form.two_responses,
    "combination:repeat_prompt": form.repeat_prompt,
    "startend:end_checker": form.end_checker,
    "startend:quotation": form.quotation,
    "change_case:capital_word_frequency": words.capital_word_frequency,
    "change_case:english_capital": words.english_capital,
    "change_case:english_lowercase": words.english_lowercase,
    "punctuation:no_comma": words.no_comma,
}


def constraints(encoded: str) -> tuple[Constraint, ...]:
    """The constraints of an item's target, a JSON list of [name, arguments]. Raises DataError where it is none."""
    try:
        pairs = json.loads(encoded)
    except ValueError as error:
        raise DataError(f"the target is no JSON list of constraints: {error}") from error
    if not isinstance(pairs, list) or not pairs:
        raise DataError("the target names no constraint")
    found = []
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict)):
            raise DataError(f"{pair!r} is not [name, arguments]")
        if pair[0] not in CHECKS:
            raise DataError(f"unknown constraint {pair[0]!r}; known: {', '.join(sorted(CHECKS))}")
        found.append((str(pair[0]), {name: value for name, value in pair[1].items() if value is not None}))
    return tuple(found)


def broken(text: str, kept: tuple[Constraint, ...]) -> tuple[str, ...]:
    """Names of the constraints that `text` does not keep."""
    return tuple(name for name, arguments in kept if not text.strip() or not CHECKS[name](text, arguments))


def loosened(text: str) -> tuple[str, ...]:
    """`text` as IFEval's loose accuracy reads it: also without its first line, its last, both, and without stars."""
    lines = text.split("\n")
    cuts = (text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip())
    return tuple(dict.fromkeys((*cuts, *(cut.replace("*", "") for cut in cuts))))
