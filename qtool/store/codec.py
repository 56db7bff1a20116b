"""Strict TOML/JSON to frozen dataclass and back: an unknown key, a missing key or a wrong type names file and key."""

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from qtool.errors import NumericError, PlanError, StoreError

T = TypeVar("T")


class _Problems(list[str]):
    """Collects every problem of one document, so that all are reported at once."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source

    def add(self, key: str, text: str) -> None:
        self.append(f"{self.source}: {key or 'top level'}: {text}")


def decode(record: type[T], document: Mapping[str, object], *, source: str) -> T:
    """`document` as a `record`. Raises PlanError with every unknown, missing and mistyped key of `source`."""
    problems = _Problems(source)
    value = _decode(record, document, "", problems)
    if problems:
        raise PlanError(problems)
    return typing.cast(T, value)


def encode(record: object) -> Any:
    """`record` as JSON-ready dicts, lists and scalars; tuples become lists, NaN and infinity are refused."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: encode(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): encode(value) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [encode(value) for value in record]
    if isinstance(record, float) and not math.isfinite(record):
        raise NumericError(f"a result is {record} and no number: values overflow in the model; look at its weights")
    if isinstance(record, Path):
        return str(record)
    return record


def read_toml(record: type[T], path: Path) -> T:
    """The TOML file `path` as a `record`. Raises PlanError naming file and line or key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PlanError([f"{path}: no such file"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError([f"{path}: not valid TOML: {error}"]) from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    return decode(record, document, source=str(path))


def read_json(record: type[T], path: Path) -> T:
    """The JSON file `path` as a `record`. Raises StoreError if unreadable, PlanError naming the wrong keys."""
    return decode(record, read_json_object(path), source=str(path))


def read_json_object(path: Path) -> dict[str, object]:
    """The top-level object of the JSON file `path`. Raises StoreError naming file and line."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise StoreError(f"{path}: not valid JSON: nested too deep") from error
    except ValueError as error:
        raise StoreError(f"{path}: holds a number too long to be read") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(document, dict):
        raise StoreError(f"{path}: expected a JSON object at the top level")
    return document


def to_json(record: object) -> str:
    """`record` as indented JSON with sorted keys and a final newline: equal records give equal bytes."""
    return json.dumps(encode(record), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _decode(expected: Any, value: object, key: str, problems: _Problems) -> object:
    origin = get_origin(expected)
    if expected is Any or expected is object:
        return value
    if dataclasses.is_dataclass(expected):
        return _decode_record(typing.cast(type, expected), value, key, problems)
    if origin is Literal:
        if value not in get_args(expected):
            problems.add(key, f"{value!r} is not one of {', '.join(map(repr, get_args(expected)))}")
        return value
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(expected), value, key, problems)
    if origin is tuple:
        return _decode_tuple(get_args(expected), value, key, problems)
    if origin is dict:
        return _decode_dict(get_args(expected)[1], value, key, problems)
    return _decode_scalar(expected, value, key, problems)


def _decode_record(record: type, value: object, key: str, problems: _Problems) -> object:
    if not isinstance(value, Mapping):
        problems.add(key, f"expected a table, got {type(value).__name__}")
        return None
    hints = typing.get_type_hints(record)
    fields = {field.name: field for field in dataclasses.fields(record)}
    before = len(problems)
    for name in value:
        if name not in fields:
            problems.add(_join(key, str(name)), f"unknown key; known keys: {', '.join(sorted(fields))}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _decode(hints[name], value[name], _join(key, name), problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.add(_join(key, name), "missing key")
    if len(problems) > before:
        return None
    try:
        return record(**arguments)
    except PlanError as error:  # a record's own __post_init__ checks
        for problem in error.problems:
            problems.add(key, problem)
        return None


def _decode_union(options: tuple[Any, ...], value: object, key: str, problems: _Problems) -> object:
    if value is None and type(None) in options:
        return None
    attempts = [(option, _Problems(problems.source)) for option in options if option is not type(None)]
    for option, found in attempts:
        decoded = _decode(option, value, key, found)
        if not found:
            return decoded
    problems.extend(attempts[0][1] if len(attempts) == 1 else [])
    if len(attempts) > 1:
        problems.add(key, f"{value!r} fits none of {', '.join(_type_name(option) for option, _ in attempts)}")
    return None


def _decode_tuple(parts: tuple[Any, ...], value: object, key: str, problems: _Problems) -> object:
    if not isinstance(value, list | tuple):
        problems.add(key, f"expected a list, got {type(value).__name__}")
        return ()
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_decode(parts[0], entry, f"{key}[{index}]", problems) for index, entry in enumerate(value))
    if len(value) != len(parts):
        problems.add(key, f"expected {len(parts)} entries, got {len(value)}")
        return ()
    return tuple(
        _decode(part, entry, f"{key}[{index}]", problems)
        for index, (part, entry) in enumerate(zip(parts, value, strict=True))
    )


def _decode_dict(expected: Any, value: object, key: str, problems: _Problems) -> object:
    if not isinstance(value, Mapping):
        problems.add(key, f"expected a table, got {type(value).__name__}")
        return {}
    return {str(name): _decode(expected, entry, _join(key, str(name)), problems) for name, entry in value.items()}


def _decode_scalar(expected: Any, value: object, key: str, problems: _Problems) -> object:
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is Path and isinstance(value, str):
        return Path(value)
    # bool is a subclass of int: `margin = true` must not pass for a number
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        problems.add(key, f"expected {_type_name(expected)}, got {type(value).__name__} {value!r}")
    return value


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _type_name(expected: Any) -> str:
    return getattr(expected, "__name__", str(expected))
