"""Multiple choice in the shapes of the public sets: ARC, HellaSwag, MMLU, TruthfulQA (mc1).

What it does: finds question, choices and the right one in whichever of these shapes a row has; the letters of the
choices are fields too, so that a prompt can show them (`{listed}`).
When to use it: allenai/ai2_arc, Rowan/hellaswag, cais/mmlu, truthfulqa/truthful_qa (multiple_choice), rows like them.
What it costs: nothing.
When it fails: on rows whose right answer is not among their choices.
"""

import re
from collections.abc import Iterable

from qtool.errors import DataError
from qtool.evaluate.items.rows import Row, text_of, texts_of
from qtool.records.task import Item, TaskSpec

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def items(row: Row, number: int, task: TaskSpec) -> Iterable[Item]:
    """One item a row, in slices by `subject` or `activity_label` where the row has them."""
    question, choices, right = _parts(row)
    if not 0 <= right < len(choices):
        raise DataError(f"the right answer is number {right}, but there are {len(choices)} choices")
    if task.metric_options.get("choices") == "letters":  # the choices are shown, and their letters are the answers
        shown, choices = choices, tuple(_letter(index) for index in range(len(choices)))
    else:
        shown = choices
    slices = [("subject", text_of(row, name)) for name in ("subject", "activity_label", "category") if name in row]
    yield Item(
        id=text_of(row, "id") if isinstance(row.get("id"), str) else f"{task.name}/{number}",
        fields=(("question", question), ("listed", _listed(shown)), ("about", _about(row))),
        answer=f" {choices[right]}",
        target=choices[right],
        slices=tuple(slices[:1]),
        choices=choices,
    )


def _about(row: Row) -> str:
    """The sentence that lm-evaluation-harness puts before a question of MMLU; nothing where the row has no subject."""
    subject = row.get("subject")
    if not isinstance(subject, str):
        return ""
    named = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {named}.\n\n"


def _parts(row: Row) -> tuple[str, tuple[str, ...], int]:
    if "endings" in row:
        label = text_of(row, "label")
        scene = (
            f"{text_of(row, 'ctx_a')} {text_of(row, 'ctx_b').capitalize()}" if "ctx_b" in row else text_of(row, "ctx")
        )
        context = f"{text_of(row, 'activity_label')}: {scene}" if "activity_label" in row else scene
        return _plain(context), tuple(map(_plain, texts_of(row, "endings"))), _index(label, ())
    targets = row.get("mc1_targets")
    if isinstance(targets, dict):
        truth = [int(label) for label in targets["labels"]]
        return text_of(row, "question"), texts_of(targets, "choices"), truth.index(1) if 1 in truth else -1
    choices = row.get("choices")
    if isinstance(choices, dict):
        labels = list(texts_of(choices, "label"))
        return text_of(row, "question"), texts_of(choices, "text"), _index(text_of(row, "answerKey"), labels)
    return text_of(row, "question").strip(), texts_of(row, "choices"), _index(text_of(row, "answer", "label"), ())


def _index(answer: str, labels: Iterable[str]) -> int:
    """Place of the right choice, from its own label, a letter, or a number from 0; -1 where it is none of these."""
    known = list(labels)
    if known:
        return known.index(answer) if answer in known else -1
    if answer.isdigit():
        return int(answer)
    return _LETTERS.find(answer) if len(answer) == 1 else -1


def _listed(choices: tuple[str, ...]) -> str:
    return "\n".join(f"{_letter(index)}. {choice}" for index, choice in enumerate(choices))


def _letter(index: int) -> str:
    """A to Z, then AA, AB and so on, as in a spreadsheet: no choice goes without a name."""
    before, last = divmod(index, len(_LETTERS))
    return (_letter(before - 1) if before else "") + _LETTERS[last]


def _plain(text: str) -> str:
    """HellaSwag's text without leftovers of WikiHow markup such as [title], as lm-evaluation-harness leaves it."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
