"""Which words a task is put in: its plain prompt, or a user's turn in the model's own chat template."""

from dataclasses import replace
from typing import Literal

from qtool.evaluate.answers.plain import unspaced
from qtool.evaluate.contract import Language
from qtool.records.task import TaskSpec

Wording = Literal["plain", "chat"]
"""`plain` is the task's `prompt` as it stands, `chat` its `chat_prompt` inside the template."""

_MARK = "qtool-message"
PROBE = "What is the capital of France?"  # what chat templates are told apart by


def wording(task: TaskSpec, chat: Language | None) -> Wording:
    """How `task` is asked: as chat where a language with a template is given.

    Running text is never a turn. A template that puts around a message just what the plain prompt has around its
    question (the bundled models') makes the plain prompt itself a turn; it is then asked as the model learned it.
    """
    if chat is None or task.scorer == "rolling":
        return "plain"
    before, mark, after = chat.chat(_MARK).partition(_MARK)
    is_turn = bool(mark) and bool(before + after) and task.prompt.startswith(before) and task.prompt.endswith(after)
    return "plain" if is_turn else "chat"


def as_chat(task: TaskSpec) -> TaskSpec:
    """`task` with the limits of a chat answer: longer, and ended by the model, not by a text of the plain prompt."""
    return replace(task, max_new_tokens=task.chat_max_new_tokens or task.max_new_tokens, stop=task.chat_stop)


def between(prompt: str, choice: str, chat: Language | None) -> str:
    """What goes between `prompt` and `choice`: a space, unless white space is there already, the chat template begins
    an answer without one, or the script is written without spaces."""
    if prompt[-1:].isspace() or choice[:1].isspace() or unspaced(prompt[-1:]) or unspaced(choice[:1]):
        return ""
    if chat is None:
        return " "
    return " " if chat.answer_lead().startswith(" ") else ""
