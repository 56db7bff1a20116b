"""Overlap of words.

What it does: F1 over the words of the extracted answer and the target, each word as often as it occurs, without case
and punctuation (the SQuAD definition, articles kept).
When to use it: answers in free words, summaries against a reference.
What it costs: nothing.
When it fails: it is blind to order and meaning: "not guilty" and "guilty not" are the same.
"""

import re
from collections import Counter

from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = False
PERFECT = 1.0
UNIT: Unit = "fraction"


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """F1 over words, between 0 and 1."""
    extracted = extract(task, item, answer)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False)
    return Grade(score=overlap(_words(extracted), _words(item.target)), extracted=extracted)


def overlap(got: Counter[str], wanted: Counter[str]) -> float:
    """F1 of two bags of words; 1 if both are empty."""
    if not got and not wanted:
        return 1.0
    shared = (got & wanted).total()
    return 2 * shared / (got.total() + wanted.total())


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.casefold()))
