"""Runs one untrusted program and lets the judge call what it defines; started alone in its sandbox, stdlib only.

It holds no test, no expected value and no verdict: whatever the program does to this interpreter, the judge only ever
receives values. Objects that are not plain stay here, and the judge is given their numbers.
"""

import collections
import contextlib
import importlib
import operator
import types
from collections.abc import Callable
from typing import Any

from qtool.evaluate.sandbox.confine import silence, start
from qtool.evaluate.sandbox.wire import Closed, Peer, pack, unpack

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "get": getattr,
    "set": setattr,
    "item": operator.getitem,
    "set item": operator.setitem,
    "delete item": operator.delitem,
    "length": len,
    "truth": bool,
    "text": str,
    "spelling": repr,
    "format": format,
    "iterate": iter,
    "next": next,
    "enter": lambda thing: type(thing).__enter__(thing),
    "leave": lambda thing: type(thing).__exit__(thing, None, None, None),
    "await": lambda thing: importlib.import_module("asyncio").run(thing),
    "is instance": lambda thing, kind: isinstance(thing, kind),
    "is subclass": lambda thing, kind: issubclass(thing, kind),
    "equal": operator.eq,
    "less": operator.lt,
    "at most": operator.le,
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "negate": operator.neg,
}
_MUTABLE = (list, dict, set, bytearray, collections.deque)


class Program:
    """The foreign program's names and objects, and what the judge may ask of them."""

    def __init__(self) -> None:
        self._peer = Peer(self.perform)
        self._space: dict[str, Any] = {"__name__": "answer"}
        self._objects: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}

    def run(self) -> None:
        """Takes the order, runs the program, tells how that went, then performs until the judge is gone."""
        order = start(self._peer)
        silence()
        self._peer.send(self._loaded(order["program"]))
        self._peer.serve()

    def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request: a value, or the exception that it ended with."""
        try:
            return self._performed(request)
        except Closed:
            raise
        except BaseException as error:  # noqa: BLE001  # what foreign code raises, exits too, is told to the judge
            return {"error": self._described(error)}

    def _loaded(self, text: str) -> dict[str, Any]:
        try:
            compiled = compile(text, "<answer>", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            return {"failed": "syntax", "detail": f"{type(error).__name__}: {error}"}
        try:
            exec(compiled, self._space)
        except Closed:
            raise
        except AssertionError as error:
            return {"failed": "assertion", "detail": str(error)}
        except MemoryError:
            self._space.clear()
            return {"failed": "memory", "detail": "out of memory"}
        except BaseException as error:  # noqa: BLE001  # as above
            return {"failed": "exception", "detail": f"{type(error).__name__}: {error}"}
        return {"ready": True}

    def _performed(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "name":
            return self._named(request["name"])
        arguments = [self._in(each) for each in request["args"]]
        if request["do"] != "call":
            return {"value": self._out(_OPERATIONS[request["do"]](*arguments))}
        named = {name: self._in(each) for name, each in request["named"].items()}
        function, *given = arguments
        before = [self._state(each) for each in (*given, *named.values())]
        value = function(*given, **named)
        changed = []
        if value is None:  # by convention, a function that changes its argument returns nothing
            for place, (each, old) in enumerate(zip((*given, *named.values()), before, strict=True)):
                if old is not None and self._state(each) != old:
                    changed.append([place, self._out(each)])
        return {"value": self._out(value), "changed": changed}

    def _named(self, name: str) -> dict[str, Any]:
        if name not in self._space:
            return {"missing": True}
        value = self._space[name]
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"exception": [kind.__name__ for kind in value.__mro__]}
        return {"value": self._out(value)}

    def _state(self, value: Any) -> Any:
        return self._out(value) if isinstance(value, _MUTABLE) else None

    def _out(self, value: Any) -> Any:
        return pack(value, self._mark)

    def _in(self, packed: Any) -> Any:
        return unpack(packed, self._resolve)

    def _mark(self, value: Any) -> dict[str, Any]:
        number = self._numbers.setdefault(id(value), len(self._numbers))
        self._objects[number] = value  # kept alive, so that its id stays its own
        return {"t": "live", "v": [number, type(value).__name__, isinstance(value, types.CoroutineType)]}

    def _resolve(self, mark: dict[str, Any]) -> Any:
        if mark["t"] == "yours":
            return self._objects[mark["v"]]
        if mark["t"] == "rebuilt":
            return self._rebuilt(*mark["v"])
        return self._callback(mark["v"])

    def _rebuilt(self, name: str, state: Any) -> Any:
        """An instance of the judge's class `name` as one of the program's own class of that name."""
        made = object.__new__(self._space[name])
        for key, each in self._in(state).items():
            object.__setattr__(made, key, each)
        return made

    def _callback(self, number: int) -> Callable[..., Any]:
        """A function of the test's that was passed as an argument."""

        def call(*arguments: Any, **named: Any) -> Any:
            given = {name: self._out(each) for name, each in named.items()}
            answer = self._peer.ask(
                {"do": "callback", "of": number, "args": [self._out(each) for each in arguments], "named": given}
            )
            if "error" in answer:
                raise RuntimeError(f"the test's function failed: {answer['error']}")
            return self._in(answer["value"])

        return call

    def _described(self, error: BaseException) -> dict[str, Any]:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        try:
            return {"kinds": kinds, "args": self._out(list(error.args)), "text": str(error)[:500]}
        except BaseException:  # noqa: BLE001  # its own __str__ may do anything
            return {"kinds": kinds, "args": [], "text": ""}


def main() -> None:
    """Runs until the judge closes the channel."""
    with contextlib.suppress(Closed):
        Program().run()
