"""From a row to text: templates over fields, chat turns through the model's own template."""

import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtool.data import generators
from qtool.data.files import Damaged, Row, read_rows
from qtool.data.hub import hub_rows
from qtool.data.sets import SourceSpec
from qtool.errors import DataError, ModelError
from qtool.models.tokenizer import surrogate_in


def source_rows(source: SourceSpec, *, seed: int, damaged: Damaged | None = None) -> Iterator[Row]:
    """All rows of `source` in their own order; those of a generator are distinct and depend on `seed`.

    Lines of a file that cannot be read go to `damaged` where it is given.
    """
    if source.generator is not None:
        return _generated(source.generator, seed)
    if source.data is not None:
        return read_rows(Path(source.data), damaged=damaged)
    assert source.hub is not None
    return hub_rows(source.hub, config=source.config, split=source.split, revision=source.revision, seed=seed)


def text_of(row: Row, source: SourceSpec, tokenizer: Any, *, chat: bool | None = None) -> str:
    """The text of `row`: its two turns in the model's chat template where the source names them and the model has one,
    unless `chat` is false. Raises DataError naming the row: a field is missing, the template refuses the turns, or the
    text holds half a character."""
    text = _text(row, source, tokenizer, as_turns=asks_as_chat(source, tokenizer, chat=chat))
    if (place := surrogate_in(text)) is not None:
        raise DataError(
            f"{row.where}: character {place + 1} of its text is half a surrogate pair (U+{ord(text[place]):04X}); "
            "no tokenizer takes it: remove it, or read the source as UTF-16"
        )
    return text


def asks_as_chat(source: SourceSpec, tokenizer: Any, *, chat: bool | None) -> bool:
    """Whether the rows of `source` are shown to the model as turns of a chat, as its tasks and its server show them."""
    return chat is not False and source.user is not None and bool(tokenizer.chat_template)


def _text(row: Row, source: SourceSpec, tokenizer: Any, *, as_turns: bool) -> str:
    if source.messages is not None:
        return _rendered(row, source.messages, tokenizer)
    if as_turns:
        assert source.user is not None  # as asks_as_chat found
        assert source.assistant is not None  # a source has both or none
        turns = [("user", _filled(row, source.user)), ("assistant", _filled(row, source.assistant))]
        return _chat(row, [{"role": role, "content": content.strip()} for role, content in turns], tokenizer)
    if source.text is not None:
        return _filled(row, source.text)
    if source.generator is not None:
        return _filled(row, "Question: {question}\nAnswer:{answer}")
    if isinstance(row.fields.get("text"), str):
        return str(row.fields["text"])
    if isinstance(row.fields.get("messages"), list):
        return _rendered(row, "messages", tokenizer)
    raise DataError(
        f"{row.where}: has no field 'text' or 'messages'; {_fields(row)}; name one in the set file (text =)"
    )


def _generated(name: str, seed: int) -> Iterator[Row]:
    from qtool import catalog

    catalog.load("qtool.data.generators", name, kind="generator")
    seen: set[str] = set()
    misses = 0
    for item in generators.stream(name, "calibration", seed):
        if item.id in seen or generators.resembles_test(name, item):
            misses += 1
            if misses > generators.PATIENCE:
                return
            continue
        misses = 0
        seen.add(item.id)
        yield Row(f"{name} item {len(seen)}", {**dict(item.fields), "answer": item.answer})


def _filled(row: Row, template: str) -> str:
    wanted = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    for name in wanted:
        if row.fields.get(name) is None:
            raise DataError(f"{row.where}: has no field {name!r}; {_fields(row)}")
    return template.format_map(dict(row.fields))


def _rendered(row: Row, field: str, tokenizer: Any) -> str:
    turns = row.fields.get(field)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) and "role" in turn for turn in turns):
        raise DataError(f"{row.where}: field {field!r} is no list of chat turns with role and content; {_fields(row)}")
    return _chat(row, turns, tokenizer)


def _chat(row: Row, turns: list[dict[str, Any]], tokenizer: Any) -> str:
    from qtool.models.tokenizer import render_chat

    try:
        return render_chat(tokenizer, turns, add_generation_prompt=False)
    except ModelError as error:
        raise DataError(f"{row.where}: {error}") from error


def _fields(row: Row) -> str:
    return f"its fields are {', '.join(row.fields) or 'none'}"
