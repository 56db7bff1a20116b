"""MATH rows: `problem`, `solution`, `answer` (LaTeX), `subject`, `level`.

What it does: the answer is the target; where a row has none, the last \\boxed part of the solution is.
When to use it: HuggingFaceH4/MATH-500 (test.jsonl), or the MATH set in the same form.
What it costs: nothing.
When it fails: on rows with neither.
"""

from collections.abc import Iterable

from qtool.errors import DataError
from qtool.evaluate.answers.latex import last_box
from qtool.evaluate.items.rows import Row, text_of
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by subject and level."""
    solution = text_of(row, "solution") if "solution" in row else ""
    target = text_of(row, "answer") if "answer" in row else last_box(solution)
    if target is None:
        raise DataError("no 'answer', and no \\boxed part in 'solution'")
    subject = next((text_of(row, name) for name in ("subject", "type") if name in row), "all")
    level = text_of(row, "level").removeprefix("Level ") if "level" in row else "all"
    yield Item(
        id=f"math500/{text_of(row, 'unique_id') if 'unique_id' in row else number}",
        fields=(("problem", text_of(row, "problem")),),
        answer=" " + (solution or f"The answer is \\boxed{{{target}}}."),
        target=target,
        slices=(("subject", subject), ("level", level)),
    )
