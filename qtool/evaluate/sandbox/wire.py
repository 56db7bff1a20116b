"""How judge and program talk: plain values as JSON, one message a line, over the socket that is each one's stdin.

Stdlib only; it runs inside the sandbox. Nothing is ever unpickled or evaluated: what arrives is a value of one of the
types below, or the number of an object that stays where it lives. A subclass of a plain type crosses as that type, so
whatever its methods pretend, the other side sees data.
"""

import collections
import importlib
import json
import os
from collections.abc import Callable
from typing import Any

MOST_LINE_BYTES = 32 << 20
DEEPEST = 400
_SMALL = 1 << 62

_PLAIN = ("bytes", "bytearray", "complex", "range", "ellipsis")

Outside = Callable[[Any], Any]  # what to do with a value that is not plain, and with the mark of one that arrives


class Closed(BaseException):
    """The other side is gone. No `except Exception` of a test may swallow it."""


def pack(value: Any, outside: Outside, depth: int = 0) -> Any:
    """`value` as something JSON can hold; `outside` gives the mark of an object that is not plain."""
    if depth > DEEPEST:
        raise RecursionError("a value nested too deeply to cross")
    deeper = depth + 1
    kinds: tuple[Any, ...] = type(value).__mro__
    for kind in kinds:
        if kind in (bool, str, type(None)):
            return value
        if kind is int:
            return value if -_SMALL < value < _SMALL else {"t": "int", "v": hex(int.__add__(value, 0))}
        if kind is float:
            finite = value == value and abs(value) != float("inf")
            return value if finite else {"t": "float", "v": float.__repr__(value)}
        if kind is list:
            return [pack(each, outside, deeper) for each in list.__iter__(value)]
        if kind is dict:
            pairs = [[pack(key, outside, deeper), pack(each, outside, deeper)] for key, each in dict.items(value)]
            return {"t": "dict", "v": pairs}
        if kind in _SEVERAL:
            return {"t": kind.__name__, "v": [pack(each, outside, deeper) for each in kind.__iter__(value)]}
        parts = _single(kind, value)
        if parts is not None:
            return {"t": kind.__name__, "v": parts}
    return outside(value)


def unpack(packed: Any, outside: Outside) -> Any:
    """The value that `packed` stands for; `outside` resolves the marks of objects that are not plain."""
    if isinstance(packed, list):
        return [unpack(each, outside) for each in packed]
    if not isinstance(packed, dict):
        return packed
    tag: str = packed["t"]
    value: Any = packed.get("v")
    if tag == "dict":
        return {unpack(key, outside): unpack(each, outside) for key, each in value}
    if tag in _SEVERAL_NAMED:
        return _SEVERAL_NAMED[tag](unpack(each, outside) for each in value)
    if tag == "int":
        return int(value, 16)
    if tag == "float":
        return float(value)
    if tag in _MODULES or tag in _PLAIN:
        return _restored(tag, value)
    return outside(packed)


class Peer:
    """One end of the channel. While an answer is awaited, requests of the other side are performed."""

    def __init__(self, perform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Takes over stdin, a socket, and leaves nothing in its place that a stray `input()` could read."""
        self._descriptor = os.dup(0)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        self._lines = os.fdopen(self._descriptor, "rb", closefd=False)
        self._perform = perform
        self.closed = False

    def receive(self) -> dict[str, Any]:
        """The next message. Raises Closed where there is none, or where it is none of ours."""
        try:
            line = self._lines.readline(MOST_LINE_BYTES)
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self.closed = True
            raise Closed
        return message

    def send(self, message: dict[str, Any]) -> None:
        """Writes one message. Raises Closed where nobody reads."""
        line = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self.closed = True
            raise Closed from None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to `request`."""
        self.send(request)
        while True:
            message = self.receive()
            if "do" not in message:
                return message
            self.send(self._perform(message))

    def serve(self) -> None:
        """Performs requests until the other side is gone."""
        while True:
            self.send(self._perform(self.receive()))


_SEVERAL: dict[Any, Any] = {kind: kind for kind in (tuple, set, frozenset, collections.deque)}
_SEVERAL_NAMED = {kind.__name__: kind for kind in _SEVERAL}
_MODULES = {"Decimal": "decimal", "Fraction": "fractions", "datetime": "datetime", "date": "datetime",
            "time": "datetime", "timedelta": "datetime"}  # fmt: skip


def _single(kind: Any, value: Any) -> Any:
    """The parts of a `value` that is one thing; None where `kind` is not such a type."""
    name = kind.__name__
    if kind in (bytes, bytearray):
        return bytes(value).hex()
    if kind is complex:
        return [float.__repr__(value.real), float.__repr__(value.imag)]
    if kind is range:
        return [hex(part) for part in (value.start, value.stop, value.step)]
    if kind is type(...):
        return ""
    # modules that cost time to import: where a value is of their type, they are there already
    if _MODULES.get(name) != kind.__module__:
        return None
    if name == "Fraction":
        return [hex(value.numerator), hex(value.denominator)]
    if name == "timedelta":
        return [value.days, value.seconds, value.microseconds]
    return kind.__str__(value) if name == "Decimal" else kind.isoformat(value)


def _restored(name: str, parts: Any) -> Any:
    """The value that `_single` took apart."""
    if name in ("bytes", "bytearray"):
        return (bytes if name == "bytes" else bytearray).fromhex(parts)
    if name == "complex":
        return complex(*map(float, parts))
    if name == "range":
        return range(*(int(part, 16) for part in parts))
    if name == "ellipsis":
        return ...
    kind = getattr(importlib.import_module(_MODULES[name]), name)
    if name == "Fraction":
        return kind(*(int(part, 16) for part in parts))
    if name == "timedelta":
        return kind(*parts)
    return kind(parts) if name == "Decimal" else kind.fromisoformat(parts)
