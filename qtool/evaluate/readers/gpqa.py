"""GPQA rows: `Question`, `Correct Answer`, `Incorrect Answer 1` to `3`, `High-level domain`.

What it does: shows the four answers in an order that depends on the question alone; the letter is the answer.
When to use it: gpqa_main.csv, gpqa_diamond.csv or gpqa_extended.csv of Idavidrein/gpqa, which asks for consent first.
What it costs: nothing.
When it fails: on rows without the four answers.
"""

import random
from collections.abc import Iterable

from qtool.evaluate.items.rows import Row, text_of
from qtool.evaluate.readers import mmlu_pro
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by domain."""
    question = text_of(row, "Question")
    right = text_of(row, "Correct Answer").strip()
    shown = [right, *(text_of(row, f"Incorrect Answer {place}").strip() for place in (1, 2, 3))]
    random.Random(f"gpqa {question}").shuffle(shown)
    domain = text_of(row, "High-level domain") if "High-level domain" in row else "all"
    name = text_of(row, "Record ID") if "Record ID" in row else f"gpqa/{number}"
    yield mmlu_pro.item(name, question, tuple(shown), shown.index(right), (("domain", domain),))
