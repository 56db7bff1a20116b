"""Fills prompt templates: `{field}` and nothing cleverer, few-shot examples before, a chat turn around where asked."""

import string
from collections.abc import Sequence

from qtool.errors import PlanError
from qtool.evaluate.contract import Language, Question
from qtool.evaluate.items.wording import wording
from qtool.records.task import Item, TaskSpec
from qtool.store.digest import record_digest

_BETWEEN_SHOTS = "\n\n"


def questions(
    task: TaskSpec, items: Sequence[Item], *, shots: Sequence[Item] = (), chat: Language | None = None
) -> tuple[Question, ...]:
    """Each item as it will be asked. With `chat`, the prompt is one user turn in that model's template."""
    language = chat if wording(task, chat) == "chat" else None
    return tuple(_question(task, item, shots, language) for item in items)


def template_problems(task: TaskSpec) -> list[str]:
    """What is wrong with the templates whatever the items are."""
    found = []
    turns = [(f"chat_turns[{index}]", template) for index, template in enumerate(task.chat_turns)]
    if turns and len(turns) % 2 == 0:
        found.append("chat_turns: the last turn must be the user's; give an odd number, user and assistant by turns")
    for key, template in (("prompt", task.prompt), ("chat_prompt", task.chat_prompt or ""), *turns):
        try:
            parsed = list(string.Formatter().parse(template))
        except ValueError as error:
            found.append(f"{key}: {error}; write {{{{ and }}}} for braces that are text")
            continue
        for _, name, spec, conversion in parsed:
            if name is not None and (not name.isidentifier() or spec or conversion):
                found.append(f"{key}: {{{name}}} is not the plain name of a field")
    return found


def check_fields(task: TaskSpec, items: Sequence[Item]) -> None:
    """Raises PlanError naming each field of a template that an item does not have."""
    wanted = set().union(*map(_names, (task.prompt, task.chat_prompt or "", *task.chat_turns)))
    for item in items:
        had = {name for name, _ in item.fields}
        if missing := sorted(wanted - had):
            raise PlanError(
                [
                    f"task {task.name}: the prompt names {', '.join(f'{{{name}}}' for name in missing)}, "
                    f"but item {item.id!r} has only {', '.join(sorted(had)) or 'no fields'}"
                ]
            )


def fill(template: str, item: Item) -> str:
    """`template` with each `{field}` replaced by the item's text; braces inside that text stay as they are."""
    values = dict(item.fields)
    parts = []
    for literal, name, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            parts.append(values[name])
    return "".join(parts)


def first_prompt(task: TaskSpec, items: Sequence[Item], shots: Sequence[Item] = ()) -> str:
    """The first prompt in full, which `golden_first_prompt` pins."""
    return questions(task, items[:1], shots=shots)[0].prompt


def _question(task: TaskSpec, item: Item, shots: Sequence[Item], chat: Language | None) -> Question:
    worked = "".join(fill(task.prompt, shot) + shot.answer + _BETWEEN_SHOTS for shot in shots)
    if chat is None:
        prompt = worked + fill(task.prompt, item)
    else:
        first, *others = task.chat_turns or (task.chat_prompt or task.prompt,)
        prompt = chat.chat(worked + fill(first, item), *(fill(turn, item) for turn in others))
    said = [prompt, item.answer, item.target, item.choices, item.tests]
    digest = record_digest([*said, item.accepts] if item.accepts else said)
    return Question(item=item, prompt=prompt, digest=digest)


def _names(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
