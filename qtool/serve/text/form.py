"""The form an answer must have: from what a client asks (a schema, a pattern, a tool it must call) to one grammar."""

import json
from collections.abc import Sequence
from typing import Any

from qtool.engine.grammar import from_lark, from_regex, from_schema
from qtool.errors import MissingPackage, RequestError
from qtool.serve.api.chat_schema import ChatRequest, NamedTool, ResponseFormat, Tool
from qtool.serve.api.refusal import Refused
from qtool.serve.text.parts import TOOL_CLOSE, TOOL_OPEN
from qtool.serve.text.vocabulary import Vocabulary

_ANY_OBJECT: dict[str, Any] = {"type": "object"}


def grammar(asked: ChatRequest, vocabulary: Vocabulary) -> str | None:
    """The grammar of the answer, checked; None for free text. Raises Refused (400) naming the field at fault."""
    form, tools = asked.response_format, active_tools(asked)
    field = "tools" if tools and (form is None or form.type == "text") else "response_format"
    try:
        made = from_lark(f"start: call\n{_call_rule(tools)}") if _must_call(asked) else _of_form(form, tools)
        if made is not None:
            vocabulary.check_grammar(made)
        return made
    except (RequestError, MissingPackage) as error:
        raise Refused(400, f"{field}: {error}"[:280], param=field) from error


def active_tools(asked: ChatRequest) -> Sequence[Tool]:
    """The tools that the model may call in this request."""
    if asked.tool_choice == "none":
        return ()
    if isinstance(asked.tool_choice, NamedTool):
        name = asked.tool_choice.function.name
        chosen = [tool for tool in asked.tools if tool.function.name == name]
        if not chosen:
            raise Refused(400, f"tool_choice: no tool is called {name!r}", param="tool_choice")
        return chosen
    return asked.tools


def _must_call(asked: ChatRequest) -> bool:
    return bool(asked.tools) and (asked.tool_choice == "required" or isinstance(asked.tool_choice, NamedTool))


def _of_form(form: ResponseFormat | None, tools: Sequence[Tool]) -> str | None:
    """Tools and a form together are a choice: an answer of that form, or a call. Both at once would leave no answer."""
    if form is None or form.type == "text":
        return None
    if tools and form.type in ("json_object", "json_schema"):
        answer = json.dumps(_schema(form))
        return from_lark(f"start: answer | call\nanswer: %json {answer}\n{_call_rule(tools)}")
    if tools:
        raise RequestError(f"type {form.type!r} cannot be combined with tools")
    if form.type == "regex":
        return from_regex(form.regex or "")
    if form.type == "grammar":
        return from_lark(form.grammar or "")
    return from_schema(_schema(form))


def _call_rule(tools: Sequence[Tool]) -> str:
    calls = {"anyOf": [_call_schema(tool) for tool in tools]}
    return f'call: "{TOOL_OPEN}\\n" body "\\n{TOOL_CLOSE}"\nbody: %json {json.dumps(calls)}\n'


def _call_schema(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "arguments": tool.function.parameters or _ANY_OBJECT},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _schema(form: ResponseFormat) -> dict[str, Any]:
    return form.json_schema.schema_ if form.json_schema is not None else _ANY_OBJECT
