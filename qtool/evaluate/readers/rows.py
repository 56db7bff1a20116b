"""A user's own rows.

What it does: takes `answer` (text or number, needed) as the reference completion and `target` (the answer itself where
there is none) as what is compared; `id` (the line number where there is none), `choices`, `tests`, `accepts` (further
right answers) and `slices` (an object of names and values) if present; every other text or number is a field of the
prompt.
When to use it: for data you write yourself, one JSON object a line.
What it costs: nothing; no package is needed.
When it fails: on a row without `answer`, on nested values other than those named above.
"""

from collections.abc import Iterable

from qtool.errors import DataError
from qtool.evaluate.items.rows import Row, text_of, texts_of
from qtool.records.task import Item, TaskSpec

_OWN = {"id", "answer", "target", "choices", "tests", "slices", "accepts"}


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row."""
    answer = text_of(row, "answer")
    yield Item(
        id=text_of(row, "id") if "id" in row else str(number),
        fields=tuple((name, text_of(row, name)) for name in row if name not in _OWN),
        answer=answer,
        target=text_of(row, "target") if "target" in row else answer.strip(),
        slices=_slices(row),
        choices=texts_of(row, "choices") if "choices" in row else (),
        tests=texts_of(row, "tests") if "tests" in row else (),
        accepts=texts_of(row, "accepts") if "accepts" in row else (),
    )


def _slices(row: Row) -> tuple[tuple[str, str], ...]:
    value = row.get("slices", {})
    if not isinstance(value, dict):
        raise DataError("'slices' must be an object of names and values")
    return tuple((str(name), str(entry)) for name, entry in value.items())
