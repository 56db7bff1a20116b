"""What an answer consists of: reasoning, content and tool calls, told apart while the text is still coming.

The marks are those of the templates that most open models share (Qwen, Hermes, DeepSeek): `<think>` and `<tool_call>`.
"""

import json
import secrets
from dataclasses import dataclass
from typing import Literal

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
TOOL_OPEN, TOOL_CLOSE = "<tool_call>", "</tool_call>"
Kind = Literal["content", "reasoning", "tool"]


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model made; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str

    def body(self, index: int | None = None) -> dict[str, object]:
        """As the API writes it; with `index` in a stream."""
        function = {"name": self.name, "arguments": self.arguments}
        call: dict[str, object] = {"id": self.id, "type": "function", "function": function}
        return call if index is None else {"index": index, **call}


class Splitter:
    """Feeds on text, gives (kind, text) as soon as it is clear, and collects calls. `tools` and `thinks` say which
    marks mean something; `thinking` that the prompt itself has opened the reasoning."""

    def __init__(self, *, tools: bool, thinks: bool, thinking: bool = False) -> None:
        self._marks: dict[str, Kind] = {}
        if thinks:
            self._marks[THINK_OPEN] = "reasoning"
        if tools:
            self._marks[TOOL_OPEN] = "tool"
        self._kind: Kind = "reasoning" if thinking and thinks else "content"
        self._pending = ""
        self._call = ""
        self._begun = False
        self.calls: list[Call] = []

    def feed(self, text: str) -> list[tuple[Kind, str]]:
        """What `text` adds, without marks; nothing that may yet turn out to be the beginning of one."""
        if not self._marks and self._kind == "content":
            return [("content", text)] if text else []
        self._pending += text
        found: list[tuple[Kind, str]] = []
        while True:
            marks = self._expected()
            places = [(place, mark) for mark in marks if (place := self._pending.find(mark)) >= 0]
            if not places:
                held = max((_overlap(self._pending, mark) for mark in marks), default=0)
                self._give(found, self._pending[: len(self._pending) - held])
                self._pending = self._pending[len(self._pending) - held :]
                return found
            place, mark = min(places)
            self._give(found, self._pending[:place])
            self._pending = self._pending[place + len(mark) :]
            if mark == TOOL_CLOSE:
                self._close_call(found)
            self._kind = self._marks.get(mark, "content")

    def end(self) -> list[tuple[Kind, str]]:
        """What was held back: the answer is over."""
        found: list[tuple[Kind, str]] = []
        pending, self._pending = self._pending, ""
        self._give(found, pending)
        if self._kind == "tool":
            self._close_call(found)
        return found

    def _expected(self) -> tuple[str, ...]:
        if self._kind == "reasoning":
            return (THINK_CLOSE,)
        return (TOOL_CLOSE,) if self._kind == "tool" else tuple(self._marks)

    def _give(self, found: list[tuple[Kind, str]], text: str) -> None:
        if self._kind == "tool":
            self._call += text
            return
        if self._marks and not self._begun:
            text = text.lstrip("\n")  # templates put a line break between a mark and what follows
        if text:
            self._begun = True
            found.append((self._kind, text))

    def _close_call(self, found: list[tuple[Kind, str]]) -> None:
        """A call that is no JSON with a name is shown as the text it is: nothing is lost."""
        text, self._call = self._call, ""
        call = parse_call(text)
        if call is None:
            found.append(("content", TOOL_OPEN + text))
        else:
            self.calls.append(call)


def parse_call(text: str) -> Call | None:
    """The call that `text` spells as JSON; None where it does not."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        return None
    arguments = document.get("arguments", document.get("parameters", {}))
    spelled = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return Call(f"call_{secrets.token_hex(8)}", document["name"], spelled)


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that is a beginning of `mark`."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
