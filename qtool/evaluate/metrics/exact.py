"""Exact match.

What it does: 1 if the extracted answer is the target, else 0; white space at the ends never counts, and with
`metric_options.ignore` "case" or "punctuation" (or both, with a comma) that does not count either.
When to use it: labels, names, letters, anything with one spelling.
What it costs: nothing.
When it fails: a right answer in other words is wrong; use f1, or the choice scorer.
"""

import string

from qtool.errors import PlanError
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1."""
    extracted = extract(task, answer.text)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False)
    ignored = _ignored(task)
    same = _plain(extracted, ignored) == _plain(item.target, ignored)
    return Grade(score=float(same), extracted=extracted)


def _ignored(task: TaskSpec) -> set[str]:
    ignored = {part.strip() for part in str(task.metric_options.get("ignore", "")).split(",")} - {""}
    if unknown := ignored - {"case", "punctuation"}:
        raise PlanError([f"metric_options.ignore: {', '.join(sorted(unknown))} is not case or punctuation"])
    return ignored


def _plain(text: str, ignored: set[str]) -> str:
    text = text.strip()
    if "case" in ignored:
        text = text.casefold()
    if "punctuation" in ignored:
        text = text.translate(str.maketrans("", "", string.punctuation)).strip()
    return text
