"""The judge's view of a program's object: it can be called and looked into, but never decides an equality.

What the rules are for: `f(2) == 3` must not pass because `f` returned something whose `__eq__` says yes to anything,
nor `abs(f(2) - 3) < 1e-6` because of its `__sub__`, nor `3 in f(2)` because of its `__contains__`. So an object that
stays in the program equals no value of the test's own, is in no order with one, and is searched by reading its members.
Two objects of one class of the program are compared by that class, since it is what such a test is about.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

_MOST_MEMBERS = 100_000

Plain = TypeVar("Plain", int, bool, str)
Ask = Callable[..., Any]  # (operation, *arguments) -> value


class LiveObject(TypeError):
    """The test did something with an object of the program that only one interpreter for both could do."""


class Remote:
    """An object that lives in the program, by its number there."""

    __slots__ = ("_ask", "_call", "_kind", "_number")

    def __init__(self, number: int, kind: str, ask: Ask, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_kind", kind)
        object.__setattr__(self, "_ask", ask)
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._call(self, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return self._ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("set item", self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._ask("delete item", self, key)

    def __len__(self) -> int:
        return _plain(self._ask("length", self), int)

    def __bool__(self) -> bool:
        return _plain(self._ask("truth", self), bool)

    def __str__(self) -> str:
        return _plain(self._ask("text", self), str)

    def __repr__(self) -> str:
        return _plain(self._ask("spelling", self), str)

    def __format__(self, how: str) -> str:
        return _plain(self._ask("format", self, how), str)

    def __iter__(self) -> Iterator[Any]:
        members = self._ask("iterate", self)
        return members if isinstance(members, Remote) else iter(members)

    def __next__(self) -> Any:
        return self._ask("next", self)

    def __contains__(self, wanted: Any) -> bool:
        for count, member in enumerate(self):
            if member is wanted or member == wanted:
                return True
            if count > _MOST_MEMBERS:
                raise LiveObject(f"`in`: the program's {self._kind} does not end")
        return False

    def __enter__(self) -> Any:
        return self._ask("enter", self)

    def __exit__(self, *exception: object) -> bool:
        return bool(self._ask("leave", self))

    def __instancecheck__(self, thing: Any) -> bool:
        return isinstance(thing, Remote) and _plain(self._ask("is instance", thing, self), bool)

    def __subclasscheck__(self, thing: Any) -> bool:
        return isinstance(thing, Remote) and _plain(self._ask("is subclass", thing, self), bool)

    def __hash__(self) -> int:
        return hash(self._number)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return False
        if self._number == other._number:
            return True
        return self._kind == other._kind and _plain(self._ask("equal", self, other), bool)

    def __ne__(self, other: object) -> bool:
        return not self == other  # never asked apart: a class could say yes to both

    def __lt__(self, other: Any) -> bool:
        return _plain(self._with("less", self, other), bool)

    def __le__(self, other: Any) -> bool:
        return _plain(self._with("at most", self, other), bool)

    def __gt__(self, other: Any) -> bool:
        return _plain(self._with("less", other, self), bool)

    def __ge__(self, other: Any) -> bool:
        return _plain(self._with("at most", other, self), bool)

    def __add__(self, other: Any) -> Any:
        return self._with("add", self, other)

    def __sub__(self, other: Any) -> Any:
        return self._with("subtract", self, other)

    def __mul__(self, other: Any) -> Any:
        return self._with("multiply", self, other)

    def __neg__(self) -> Any:
        return _same_kind(self, self._ask("negate", self))

    def _with(self, operation: str, left: Any, right: Any) -> Any:
        if not (isinstance(left, Remote) and isinstance(right, Remote) and left._kind == right._kind):
            raise LiveObject(f"{operation!r} of the program's {self._kind} and a value of the test's own")
        found = self._ask(operation, left, right)
        return found if operation in ("less", "at most") else _same_kind(self, found)


def _plain(value: Any, kind: type[Plain]) -> Plain:
    if type(value) is not kind:
        raise LiveObject(f"the program gave {type(value).__name__} where {kind.__name__} is due")
    return value


def _same_kind(one: Remote, found: Any) -> Any:
    """A sum of two vectors is a vector; a plain number made by the program's own `__sub__` could be any."""
    if not (isinstance(found, Remote) and found._kind == one._kind):
        raise LiveObject(f"arithmetic of the program's {one._kind} gave another kind")
    return found
