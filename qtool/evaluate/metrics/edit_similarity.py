"""Likeness of two texts, letter by letter.

What it does: 1 minus the Levenshtein distance over the longer length: 1 is the same text, 0 nothing in common.
When to use it: transcription, code completion, anything where nearly right is worth something.
What it costs: letters of the answer times letters of the target; texts are cut at 4,000 letters.
When it fails: it does not know which letters matter: 100 and 900 are two thirds alike.
"""

from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = False
PERFECT = 1.0
UNIT: Unit = "fraction"

_LONGEST = 4000


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """Similarity between 0 and 1."""
    extracted = extract(task, item, answer)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False)
    left, right = extracted.strip()[:_LONGEST], item.target.strip()[:_LONGEST]
    longest = max(len(left), len(right))
    return Grade(score=1.0 - _distance(left, right) / longest if longest else 1.0, extracted=extracted)


def _distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for count, letter in enumerate(left, start=1):
        diagonal, row[0] = row[0], count
        for index, other in enumerate(right, start=1):
            above = row[index]
            row[index] = min(above + 1, row[index - 1] + 1, diagonal + (letter != other))
            diagonal = above
    return row[-1]
