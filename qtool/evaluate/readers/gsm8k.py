"""GSM8K rows: `question`, and `answer` whose last line is "#### number".

What it does: the worked answer without its calculator marks is the reference, the number after #### the target.
When to use it: openai/gsm8k, or grade-school-math's test.jsonl.
What it costs: nothing.
When it fails: on an answer without "####".
"""

import re
from collections.abc import Iterable

from qtool.errors import DataError
from qtool.evaluate.items.rows import Row, text_of
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by number of worked steps."""
    worked, mark, final = text_of(row, "answer").rpartition("####")
    if not mark:
        raise DataError("'answer' has no line '#### number'")
    plain = re.sub(r"<<.*?>>", "", worked).strip()
    target = final.strip().replace(",", "")
    yield Item(
        id=f"gsm8k/{number}",
        fields=(("question", text_of(row, "question")),),
        answer=f" {plain}\nThe answer is {target}.",
        target=target,
        slices=(("steps", str(min(8, len(plain.splitlines())))),),
    )
