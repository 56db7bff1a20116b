"""Longest common subsequence of words.

What it does: ROUGE-L F1: the longest run of words, gaps allowed, that answer and target share in order, against the
length of both; without case and punctuation, without stemming.
When to use it: summaries against a reference, where order matters.
What it costs: words of the answer times words of the target, microseconds for a paragraph.
When it fails: another wording of the same content counts for little.
"""

import re

from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = False
PERFECT = 1.0
UNIT: Unit = "fraction"


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """ROUGE-L F1, between 0 and 1."""
    extracted = extract(task, item, answer)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False)
    got, wanted = (re.findall(r"\w+", text.casefold()) for text in (extracted, item.target))
    if not got and not wanted:
        return Grade(score=1.0, extracted=extracted)
    return Grade(score=2 * _common(got, wanted) / (len(got) + len(wanted)), extracted=extracted)


def _common(left: list[str], right: list[str]) -> int:
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for index, other in enumerate(right, start=1):
            above = row[index]
            row[index] = diagonal + 1 if word == other else max(above, row[index - 1])
            diagonal = above
    return row[-1]
