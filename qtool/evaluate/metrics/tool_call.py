"""The right tool with the right arguments, or none where none fits.

What it does: finds the JSON object of a call in the answer, `{"name": ..., "arguments": {...}}` (also `parameters`, or
OpenAI's `function`, with arguments as text), and gives 1 if it names the tool of the target with the target's
arguments, else 0. Texts are compared without case and outer white space, numbers by what they are worth. Where no tool
fits, the target's name is "none", and a sentence that says so is as right as that name. The notes say what was wrong:
no call, an unknown or wrong tool, an argument missing, invented, of the wrong type or with the wrong value, a call
where none fits, or none where one does.
When to use it: tool calls; the item's field `tools` is a JSON list of tools with JSON schemas as parameters.
What it costs: nothing.
When it fails: one call an answer; the first of several is judged.
"""

import json
import re
from collections.abc import Mapping

from qtool.errors import DataError
from qtool.evaluate.answers.json_text import json_value, loads
from qtool.evaluate.answers.spoken import own_turn
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import is_unanswered
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
PERFECT = 1.0
UNIT: Unit = "fraction"
NONE = "none"

_KEYS = ("name", "arguments", "parameters", "function")
_DECLINES = re.compile(
    r"\b(?:none\b|no\s+(?:\w+\s+){0,2}(?:tool|function)s?\b|(?:can(?:no|')t|can\s+not|not\s+able\s+to|unable\s+to|don't\s+have)\b"
    r"|(?:do|does|is|are)\s*n(?:o|')t\s+(?:\w+\s+){0,3}(?:tool|function|fit|suitable))",
    re.IGNORECASE,
)
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
}  # fmt: skip


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where target or tools are not of the form above."""
    name, arguments = _target(item)
    tools = _tools(item)
    if name != NONE and (wrong := _fault(name, arguments, tools, name, arguments)):
        raise DataError(f"the target {item.target} does not fit the tools: {wrong}")


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1."""
    wanted, arguments = _target(item)
    text = "" if is_unanswered(answer) else own_turn(answer.text)
    call = _call(text)
    if call is None:
        declined = _DECLINES.search(text) is not None
        note = "none where one fits" if declined else "no call"
        right = declined and wanted == NONE
        return Grade(float(right), NONE if declined else "", declined, () if right else (("call", note),))
    name, got = call
    extracted = json.dumps({"name": name, "arguments": got}, ensure_ascii=False)
    fault = _fault(name, got, _tools(item), wanted, arguments)
    return Grade(float(not fault), extracted, notes=(("call", fault),) if fault else ())


def _fault(
    name: str, got: Mapping[str, object], tools: Mapping[str, Mapping[str, object]], wanted: str,
    arguments: Mapping[str, object],
) -> str:  # fmt: skip
    """What is wrong with the call, the first that holds; empty where nothing is."""
    if name == NONE or wanted == NONE:
        return "" if name == wanted else "none where one fits" if name == NONE else "a call where none fits"
    if name not in tools:
        return "unknown tool"
    schema = tools[name]
    properties = schema.get("properties")
    known = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    if any(key not in got for key in (required if isinstance(required, list) else ())):
        return "argument missing"
    if any(key not in known for key in got):
        return "argument invented"
    if any(not _fits(value, known[key]) for key, value in got.items()):
        return "wrong type"
    if name != wanted:
        return "wrong tool"
    return "" if {key: _plain(value) for key, value in got.items()} == _plained(arguments) else "wrong value"


def _fits(value: object, schema: object) -> bool:
    """Whether `value` is what the property's schema allows, by type and enumeration."""
    if not isinstance(schema, dict):
        return True
    allowed = schema.get("enum")
    if isinstance(allowed, list) and _plain(value) not in [_plain(entry) for entry in allowed]:
        return False
    kind = schema.get("type")
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return True
    if isinstance(value, bool) and kind != "boolean":
        return False
    return not isinstance(kind, str) or kind not in _TYPES or isinstance(value, _TYPES[kind])


def _plained(arguments: Mapping[str, object]) -> dict[str, object]:
    return {key: _plain(value) for key, value in arguments.items()}


def _plain(value: object) -> object:
    """A text without case and outer white space; an equal number is equal already."""
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


def _call(text: str) -> tuple[str, Mapping[str, object]] | None:
    """Name and arguments of the call in `text`, None where there is none."""
    found = json_value(text, keys=_KEYS)
    value = None if found is None else loads(found)
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        return None
    name = value.get("name", value.get("function"))
    given = value.get("arguments", value.get("parameters", {}))
    if isinstance(given, str):
        try:
            given = loads(given)
        except ValueError:
            return None
    if name is None and "name" in value:
        name = NONE
    return (name, given or {}) if isinstance(name, str) and isinstance(given, dict | None) else None


def _target(item: Item) -> tuple[str, Mapping[str, object]]:
    call = _call(item.target)
    if call is None:
        raise DataError(f"the target {item.target!r} is not a call such as {{'name': ..., 'arguments': {{...}}}}")
    return call


def _tools(item: Item) -> Mapping[str, Mapping[str, object]]:
    """The parameters of each tool of the item by its name."""
    try:
        listed = loads(item.field("tools"))
        return {entry["name"]: entry["parameters"] for entry in listed}  # type: ignore[attr-defined]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError("the field 'tools' is not a JSON list of tools with name and parameters") from error
