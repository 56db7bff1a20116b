"""MMLU-Pro rows: `question`, `options` (three to ten), `answer` (a letter) or `answer_index`, `category`.

What it does: shows the options under letters; the letter is the answer, which the model writes after thinking.
When to use it: TIGER-Lab/MMLU-Pro, as JSON lines.
What it costs: nothing.
When it fails: on rows whose letter is beyond their options.
"""

from collections.abc import Iterable

from qtool.errors import DataError
from qtool.evaluate.answers.options import LETTERS
from qtool.evaluate.items.rows import Row, text_of, texts_of
from qtool.records.task import Item, TaskSpec


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by category."""
    shown = tuple(text for text in texts_of(row, "options") if text != "N/A")
    index = row.get("answer_index")
    right = index if isinstance(index, int) else LETTERS.find(text_of(row, "answer").strip().upper())
    if not 0 <= right < len(shown) <= len(LETTERS):
        raise DataError(f"the right answer is number {right}, but there are {len(shown)} options")
    category = text_of(row, "category") if "category" in row else "all"
    yield item(
        f"mmlu_pro/{text_of(row, 'question_id') if 'question_id' in row else number}",
        text_of(row, "question"),
        shown,
        right,
        (("category", category),),
    )


def item(name: str, question: str, shown: tuple[str, ...], right: int, slices: tuple[tuple[str, str], ...]) -> Item:
    """A question whose options are shown under letters; the first slice is a field too."""
    letters = tuple(LETTERS[: len(shown)])
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(letters, shown, strict=True))
    return Item(
        id=name,
        fields=(("question", question.strip()), ("listed", listed), slices[0]),
        answer=f" The answer is ({letters[right]}).",
        target=letters[right],
        slices=slices,
        choices=letters,
    )
