"""Items by length: those that do not fit the model's context are left out, alike for a model and its variants."""

from collections.abc import Sequence
from dataclasses import replace

from qtool.errors import PlanError
from qtool.evaluate.asking.questions import Asked
from qtool.evaluate.asking.subject import Settings, Subject
from qtool.evaluate.contract import Language
from qtool.evaluate.items import prompts
from qtool.evaluate.items.wording import as_chat, wording
from qtool.progress import Progress
from qtool.records.place import Server

_ROOM = 1024  # tokens beyond the longest length: the template, the answer


def widened(settings: Settings, subject: Subject, asked: Sequence[Asked]) -> Settings:
    """`settings` with a context that holds the longest items asked, or as much as the model was made for.

    What the user said stays; so does all where no task has lengths.
    """
    if settings.context_tokens is not None or not any(each.task.length_slice for each in asked):
        return settings
    from qtool.models.architecture import longest_context
    from qtool.models.checkpoint import read_config

    folder = settings.tokenizer if isinstance(subject.place, Server) else subject.place
    if folder is None or not (folder / "config.json").is_file():
        return settings
    longest = max((length for each in asked for length in _lengths(each)), default=0)
    return replace(settings, context_tokens=min(longest + _ROOM, longest_context(read_config(folder))))


def fitting(asked: Asked, language: Language, settings: Settings, progress: Progress) -> Asked:
    """`asked` without the items whose length, told from the first item of that length, is beyond the context."""
    name, room = asked.task.length_slice, settings.context_tokens
    if name is None or room is None:
        return asked
    chat = language if settings.chat else None
    task = as_chat(asked.task) if wording(asked.task, chat) == "chat" else asked.task
    fits = set()
    for length in sorted(_lengths(asked)):
        first = next(item for item in asked.items if dict(item.slices).get(name) == str(length))
        prompt = prompts.questions(task, [first], shots=asked.shots, chat=chat)[0].prompt
        # a twentieth more: items of one length differ a little
        if 1.05 * len(language.encode(prompt)) + task.max_new_tokens <= room:
            fits.add(str(length))
    kept = tuple(item for item in asked.items if dict(item.slices).get(name, "") in fits | {""})
    if not kept:
        raise PlanError([f"task {task.name}: no item fits the model's context of {room:,} tokens; leave the task out"])
    if len(kept) < len(asked.items):
        progress.note(
            f"{task.name}: {len(asked.items) - len(kept)} of {len(asked.items)} items are longer than the model's "
            f"context of {room:,} tokens and are left out"
        )
    return replace(asked, items=kept)


def _lengths(asked: Asked) -> set[int]:
    name = asked.task.length_slice
    found = {dict(item.slices).get(name or "", "") for item in asked.items}
    return {int(length) for length in found if length.isdigit()}
