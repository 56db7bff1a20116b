"""Cuts the compared answer out of a completion as its task says: a number, a letter, words, code, JSON, or the text."""

import re
import unicodedata
from collections.abc import Callable

from qtool.evaluate.answers import code as code_reader
from qtool.evaluate.answers import json_text, words
from qtool.evaluate.answers.letter import letter
from qtool.evaluate.answers.number import number
from qtool.evaluate.answers.options import options
from qtool.evaluate.answers.spoken import own_turn, spoken
from qtool.evaluate.contract import Answer
from qtool.records.task import Item, TaskSpec


def extract(task: TaskSpec, item: Item, answer: Answer) -> str | None:
    """What `task.extract` takes out of `answer` to `item`, or None where there is no such thing in it."""
    text = spoken(answer.text, thinking_open=answer.thinking_open)
    if text is None or not text.strip():
        return None
    if _READERS[task.extract] is _number:
        return _number(text, item, task, complete=answer.finish != "length")
    return _READERS[task.extract](text, item, task)


def is_unanswered(answer: Answer) -> bool:
    """Whether the model never came out of its thinking."""
    return spoken(answer.text, thinking_open=answer.thinking_open) is None


def question_of(item: Item) -> str:
    """All text of the item's fields: what an answer may repeat without saying anything."""
    return "\n".join(text for _, text in item.fields)


def _text(text: str, item: Item, task: TaskSpec) -> str | None:
    return unicodedata.normalize("NFC", text).strip() or None


def _first_line(text: str, item: Item, task: TaskSpec) -> str | None:
    line = next((line.strip() for line in text.splitlines() if line.strip()), None)
    return None if line is None else unicodedata.normalize("NFC", line)


def _number(text: str, item: Item, task: TaskSpec, *, complete: bool = True) -> str | None:
    found = number(own_turn(text), question=question_of(item), complete=complete)
    return None if found is None else found.exact + found.unit


def _letter(text: str, item: Item, task: TaskSpec) -> str | None:
    return letter(own_turn(text), options(item))


def _words(text: str, item: Item, task: TaskSpec) -> str | None:
    if item.choices and all(len(choice) == 1 and choice.isupper() and choice.isascii() for choice in item.choices):
        return letter(own_turn(text), options(item))
    if item.choices:
        return words.label(own_turn(text), item.choices)
    if number(item.target) is not None and not re.search(r"[^\W\d]", item.target):
        return _number(text, item, task)  # "28 protons" answers 28
    found = words.words(own_turn(text), question_of(item))
    return None if found is None else unicodedata.normalize("NFC", found)


def _json(text: str, item: Item, task: TaskSpec) -> str | None:
    try:
        target = json_text.loads(item.target)
    except ValueError:
        target = None
    keys = tuple(target) if isinstance(target, dict) else ()
    return json_text.json_value(text, keys=keys, array=isinstance(target, list))


def _code(text: str, item: Item, task: TaskSpec) -> str | None:
    prefix_field = task.metric_options.get("prefix_field")
    prefix = item.field(str(prefix_field)) if prefix_field is not None else ""
    return code_reader.program(text, names=code_reader.called(item.tests, item.target), prefix=prefix)


_READERS: dict[str, Callable[[str, Item, TaskSpec], str | None]] = {
    "text": _text,
    "first_line": _first_line,
    "number": _number,
    "last_number": _number,
    "words": _words,
    "json": _json,
    "code": _code,
    "letter": _letter,
}
