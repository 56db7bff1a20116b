"""MBPP rows: `task_id`, `text` or `prompt`, `code`, `test_list`, and imports for the tests where there are any.

What it does: asks for a function in words, shows the tests, and runs the answer against them.
When to use it: google-research-datasets/mbpp, full or sanitized.
What it costs: nothing.
When it fails: on rows without tests.
"""

from collections.abc import Iterable

from qtool.evaluate.items.rows import Row, text_of, texts_of
from qtool.records.task import Item, TaskSpec

_SHOWN = 3  # tests that the prompt shows, as lm-evaluation-harness does; all of them are run


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row."""
    tests = texts_of(row, "test_list")
    setup = row.get("test_setup_code") or row.get("test_imports") or ""
    before = "\n".join(setup) if isinstance(setup, list) else str(setup)
    yield Item(
        id=f"mbpp/{text_of(row, 'task_id')}",
        fields=(("text", text_of(row, "text", "prompt")), ("tests", "\n".join(tests[:_SHOWN]))),
        answer=text_of(row, "code"),
        target=text_of(row, "code"),
        tests=tuple(f"{before}\n{test}" if before else test for test in tests),
    )
