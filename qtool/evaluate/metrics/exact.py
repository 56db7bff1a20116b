"""Exact match.

What it does: 1 if the extracted answer is the target, else 0; white space at the ends never counts, and with
`metric_options.ignore` "case" or "punctuation" (or both, with a comma) that does not count either.
When to use it: labels, names, letters, anything with one spelling.
What it costs: nothing.
When it fails: a right answer in other words is wrong; use f1, or the choice scorer.
"""

import re
import string
import unicodedata

from qtool.errors import DataError, PlanError
from qtool.evaluate.answers.words import trimmed
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1."""
    extracted = extract(task, item, answer)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False)
    ignored = _ignored(task)
    right = {_plain(text, ignored, task) for text in (item.target, *item.accepts)}
    same = _plain(extracted, ignored, task) in right
    return Grade(score=float(same), extracted=extracted)


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where the target can be no answer."""
    _ignored(task)
    if task.extract == "letter" and not re.fullmatch(r"\W*[A-Za-z]\W*", item.target):
        raise DataError(f"the target {item.target!r} is not a letter; give A, B and so on, or use extract = 'words'")
    if task.scorer == "generation" and not item.target.strip():
        raise DataError("the target is empty; nothing could be compared with it")


def _ignored(task: TaskSpec) -> set[str]:
    ignored = {part.strip() for part in str(task.metric_options.get("ignore", "")).split(",")} - {""}
    if unknown := ignored - {"case", "punctuation"}:
        raise PlanError([f"metric_options.ignore: {', '.join(sorted(unknown))} is not case or punctuation"])
    return ignored


def _plain(text: str, ignored: set[str], task: TaskSpec) -> str:
    text = unicodedata.normalize("NFC", text).strip()
    if task.extract == "words":
        text = trimmed(text)  # targets as answers: without quotes, article and full stop
    if task.extract == "letter":
        text = text.strip("()[].").upper()
    if "case" in ignored:
        text = text.casefold()
    if "punctuation" in ignored:
        text = text.translate(str.maketrans("", "", string.punctuation)).strip()
    return text
