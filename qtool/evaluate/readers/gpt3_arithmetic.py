"""The arithmetic sets of the GPT-3 paper: `context` ("Q: What is 3 plus 4?\\n\\nA:") and `completion`.

What it does: the completion without white space is the target.
When to use it: EleutherAI/arithmetic, or its JSONL files.
What it costs: nothing.
When it fails: on rows without these two keys.
"""

from collections.abc import Iterable

from qtool.evaluate.items.rows import Row, text_of
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by operation."""
    context = text_of(row, "context").replace("Question:", "Q:").replace("Answer:", "A:").rstrip()
    target = text_of(row, "completion").strip().replace("\u2212", "-")
    words = {"plus": "addition", "minus": "subtraction", "times": "multiplication"}
    operation = next((name for word, name in words.items() if f" {word} " in context), "mixed")
    yield Item(
        id=f"{task.name}/{number}",
        fields=(("context", context),),
        answer=f" {target}",
        target=target,
        slices=(("operation", operation),),
    )
