"""Types of fields that JSON clients spell in several ways, with one plain word for each way that is wrong."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_MOST_PROMPTS = 128
_MOST_STOPS = 4
_LONGEST_STOP = 256
_IDS_END = 2**31


def _whole(value: object) -> object:
    """JSON has one kind of number: 5.0 is the whole number 5."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else value


def _stop(value: object) -> object:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list):
        raise ValueError("must be a string or a list of strings")
    if len(stops) > _MOST_STOPS:
        raise ValueError(f"has {len(stops)} strings; at most {_MOST_STOPS} are allowed")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= _LONGEST_STOP:
            raise ValueError(f"every stop must be a string of 1 to {_LONGEST_STOP} characters")
    return tuple(stops)


def _prompt(value: object) -> object:
    """Prompts as a tuple: each a text or a tuple of ids."""
    if isinstance(value, str):
        return (_text(value),)
    if not isinstance(value, list):
        raise ValueError("must be a string, a list of strings, a list of token ids, or a list of such lists")
    if not value:
        raise ValueError("is an empty list")
    if _is_id(value[0]):
        return (_ids(value),)
    if len(value) > _MOST_PROMPTS:
        raise ValueError(f"has {len(value)} prompts; at most {_MOST_PROMPTS} are allowed")
    first = type(value[0])
    if first not in (str, list) or any(type(part) is not first for part in value):
        raise ValueError("must hold strings only, token ids only, or lists of token ids only")
    return tuple(_text(part) if isinstance(part, str) else _ids(part) for part in value)


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("holds nothing but white space")
    return value


def _ids(value: list[object]) -> tuple[int, ...]:
    if not value:
        raise ValueError("is an empty list of token ids")
    ids = tuple(_whole(part) for part in value)
    if not all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part < _IDS_END for part in ids):
        raise ValueError("token ids must be whole numbers of at least 0")
    return ids  # type: ignore[return-value]


def _is_id(value: object) -> bool:
    return isinstance(value, int | float)


_ID_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": _IDS_END - 1}
_IDS_SCHEMA: dict[str, Any] = {"type": "array", "items": _ID_SCHEMA, "minItems": 1}
_TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
_STOP_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": _LONGEST_STOP}


def _several(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": _MOST_PROMPTS}


Whole = BeforeValidator(_whole)
TokenId = Annotated[int, Whole, Field(ge=0, lt=_IDS_END)]
Prompts = Annotated[
    tuple[str | tuple[int, ...], ...],
    BeforeValidator(_prompt),
    WithJsonSchema({"anyOf": [_TEXT_SCHEMA, _several(_TEXT_SCHEMA), _IDS_SCHEMA, _several(_IDS_SCHEMA)]}),
]
Stops = Annotated[
    tuple[str, ...],
    BeforeValidator(_stop),
    WithJsonSchema({"anyOf": [_STOP_SCHEMA, {"type": "array", "items": _STOP_SCHEMA, "maxItems": _MOST_STOPS}]}),
]
