"""BIG-Bench Hard rows: `input` and `target`, which is a letter in brackets, yes or no, a number or words.

What it does: options that the input lists ("(A) ...") become the item's choices, and so do the two sides of yes or no,
true or false, valid or invalid; each is then read as such.
When to use it: a task's JSON file of suzgunmirac/BIG-Bench-Hard, or its rows as JSON lines.
What it costs: nothing.
When it fails: sorted words and brackets are compared as they are written.
"""

import re
from collections.abc import Iterable

from qtool.evaluate.items.rows import Row, text_of
from qtool.records.task import Item, TaskSpec

_PAIRS = (("yes", "no"), ("true", "false"), ("valid", "invalid"))
_LETTER = re.compile(r"\(([A-Z])\)")


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row."""
    question, target = text_of(row, "input"), text_of(row, "target").strip()
    choices: tuple[str, ...] = ()
    kind = "words"
    if letter := _LETTER.fullmatch(target):
        target, kind = letter.group(1), "letter"
        choices = tuple(sorted({*_LETTER.findall(question), target}))
    elif pair := next((each for each in _PAIRS if target.casefold() in each), None):
        choices, kind = tuple(target[0] + side[1:] if target.casefold() == side else side for side in pair), "label"
    elif re.fullmatch(r"-?\d+", target):
        kind = "number"
    yield Item(
        id=text_of(row, "id") if "id" in row else f"bbh/{number}",
        fields=(("input", question),),
        answer=f" {target}",
        target=target,
        slices=(("kind", kind), *((("task", text_of(row, "task")),) if "task" in row else ())),
        choices=choices,
    )
