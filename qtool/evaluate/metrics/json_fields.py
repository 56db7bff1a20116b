"""Fields of a JSON object, each right or wrong.

What it does: F1 over (path, value) pairs of the extracted object against the target's: a missing field costs recall, an
invented one precision. The object is found among prose by its keys; 3 and 3.0 are one number.
Notes say whether the JSON was valid, whether all of it was right, and which fields were wrong.
When to use it: structured extraction.
What it costs: nothing.
When it fails: "3" and 3 are different values, as they are for a program that reads the object, unless
`metric_options.values` is "read", which also leaves case aside; order of keys is free,
order in lists is not.
"""

import json
import re
import unicodedata
from collections.abc import Iterator

from qtool.errors import DataError, PlanError
from qtool.evaluate.answers.json_text import loads
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = False
PERFECT = 1.0
UNIT: Unit = "fraction"


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where the target is no JSON."""
    _is_loose(task)
    try:
        loads(item.target)
    except ValueError as error:
        raise DataError(f"the target is not valid JSON: {error}") from error


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """F1 over fields, between 0 and 1."""
    loose = _is_loose(task)
    try:
        wanted = set(_pairs(loads(item.target), "", loose=loose))
    except ValueError as error:
        raise DataError(f"item {item.id!r}: the target is not valid JSON: {error}") from error
    extracted = extract(task, item, answer)
    try:
        got = set(_pairs(loads(extracted), "", loose=loose)) if extracted is not None else None
    except ValueError:
        got = None
    if extracted is None or got is None:
        return Grade(score=0.0, extracted=extracted or "", parsed=False, notes=(("json", "invalid"),))
    score = 1.0 if wanted == got else 2 * len(wanted & got) / (len(wanted) + len(got))
    wrong = sorted({path for path, _ in wanted ^ got})
    notes = (("json", "valid"), *((("wrong_fields", ",".join(wrong)),) if wrong else ()))
    return Grade(score=score, extracted=extracted, notes=notes)


def _pairs(value: object, path: str, *, loose: bool) -> Iterator[tuple[str, str]]:
    """(path, JSON of the leaf) of every leaf; an empty object or list is a leaf."""
    if isinstance(value, dict) and value:
        for key, entry in value.items():
            yield from _pairs(entry, f"{path}.{key}" if path else str(key), loose=loose)
    elif isinstance(value, list) and value:
        for index, entry in enumerate(value):
            yield from _pairs(entry, f"{path}[{index}]", loose=loose)
    else:
        yield path, _leaf(_loosened(value) if loose else value)


def _is_loose(task: TaskSpec) -> bool:
    """Whether values are compared as a reader would, not as a program would."""
    how = task.metric_options.get("values", "strict")
    if how not in ("strict", "read"):
        raise PlanError([f"metric_options.values: {how!r} is not strict or read"])
    return how == "read"


def _loosened(value: object) -> object:
    """A text without case and white space at its ends, and as the number that it spells in plain digits."""
    if not isinstance(value, str):
        return value
    text = value.strip().casefold()
    return json.loads(text) if re.fullmatch(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{1,14})?", text) else text


def _leaf(value: object) -> str:
    """A value as text; numbers by what they are worth, since JSON does not tell 3 from 3.0."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else f"json {json.dumps(value)}"
