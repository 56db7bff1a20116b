"""The same mathematical value.

What it does: 1 if the answer's last \\boxed part, else what it marks as its answer, else its only number, is the
target: the same LaTeX but for spaces, units and other forms of a fraction or a root, the same number, or the same parts
of a pair, an interval or a list.
When to use it: MATH and its like, whose targets are LaTeX.
What it costs: nothing.
When it fails: nothing is worked out: x(x+1) and x^2+x are not the same here.
"""

import re

from qtool.errors import DataError
from qtool.evaluate.answers import number as reader
from qtool.evaluate.answers.latex import last_box, parts
from qtool.evaluate.answers.spoken import own_turn, spoken
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"

_MARKED = re.compile(r"\b(?:answer|result)\s*(?:is|=|:)\s*:?\s*(.+?)(?:\.\s*(?:\n|$)|\.\s+[A-Z]|\n|$)", re.IGNORECASE)


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where the target is empty."""
    if not item.target.strip():
        raise DataError("the target is empty; nothing could be compared with it")


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1."""
    text = spoken(answer.text, thinking_open=answer.thinking_open)
    extracted = None if text is None else _value(own_turn(text), item.target)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False)
    return Grade(score=float(same(extracted, item.target)), extracted=extracted)


def same(value: str, target: str) -> bool:
    """Whether both stand for one value, as far as that shows without working anything out."""
    brackets, mine = parts(value)
    wanted, theirs = parts(target)
    if brackets != wanted or len(mine) != len(theirs):
        return False
    return all(left == right or _same_number(left, right) for left, right in zip(mine, theirs, strict=True))


def _same_number(left: str, right: str) -> bool:
    if not (re.search(r"\d", left) and re.search(r"\d", right)) or re.search(r"[a-zA-Z]", left.replace("\\frac", "")):
        return False
    if re.search(r"[a-zA-Z]", right.replace("\\frac", "")):
        return False
    values = [reader.number(text) for text in (left, right)]
    return values[0] is not None and values[1] is not None and values[0].value == values[1].value


def _value(text: str, target: str) -> str | None:
    """The answer in `text`: boxed, marked, or for a target that is a number the only one."""
    box = last_box(text)
    if box:
        return box
    marked = _MARKED.findall(text)
    if marked:
        inner = re.search(r"\$([^$]+)\$|\\\((.+?)\\\)", marked[-1])
        return (inner.group(1) or inner.group(2)).strip() if inner else marked[-1].strip().strip("*")
    if reader.number(target) is None:
        return None
    found = reader.number(text)
    return None if found is None else found.exact
