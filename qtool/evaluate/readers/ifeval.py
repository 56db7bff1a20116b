"""IFEval rows: `prompt`, `instruction_id_list`, and `kwargs`, one object of arguments for each instruction.

What it does: the instructions are the target, which the metric `instructions` checks; arguments that are null are left
out, as the published file fills every object with all names.
When to use it: google/IFEval, or input_data.jsonl of its repository.
What it costs: nothing.
When it fails: on instructions beyond IFEval's 25.
"""

import json
from collections.abc import Iterable

from qtool.errors import DataError
from qtool.evaluate.items.rows import Row, text_of, texts_of
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by number of instructions and by the first one's family."""
    names, arguments = texts_of(row, "instruction_id_list"), row.get("kwargs")
    if not isinstance(arguments, list | tuple) or len(arguments) != len(names):
        raise DataError("'kwargs' must be a list of as many objects as there are instructions")
    pairs = []
    for name, given in zip(names, arguments, strict=True):
        if not isinstance(given, dict):
            raise DataError(f"the arguments of {name} must be an object, not {given!r}")
        pairs.append([name, {key: value for key, value in given.items() if value is not None}])
    yield Item(
        id=f"ifeval/{text_of(row, 'key') if 'key' in row else number}",
        fields=(("prompt", text_of(row, "prompt")),),
        answer="",
        target=json.dumps(pairs),
        slices=(("conditions", str(len(names))), ("kind", names[0].split(":")[0])),
    )
