"""Runs the tests of one item, in a process and a sandbox of its own; the program is at the other end of a channel.

Names that a test uses are the test's own, then those of the task's given beginning, then Python's, and only then the
program's: `f(2)` asks the program, `abs(f(2) - 3)` subtracts here. The verdict goes to stdout, which the program has
no way to reach.
"""

import ast
import builtins
import importlib
import json
import os
import sys
import types
from collections import deque
from collections.abc import Callable
from typing import Any

from qtool.evaluate.sandbox.confine import silence, start
from qtool.evaluate.sandbox.remote import LiveObject, Remote
from qtool.evaluate.sandbox.wire import Closed, Peer, pack, unpack

_FAILURES = ("syntax", "assertion", "memory", "exception")
_CALLABLE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


class Judge:
    """The tests' side: what crosses in both directions, and the exceptions that stand for the program's."""

    def __init__(self) -> None:
        self._peer = Peer(self._callback)
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[str, type[Exception]] = {}
        self.order: dict[str, Any] = {}

    def verdict(self) -> tuple[str, str]:
        """(how the item ended, with what message)."""
        self.order = start(self._peer)
        try:
            begun = self._peer.receive()
            if begun.get("failed") in _FAILURES:
                return begun["failed"], str(begun.get("detail"))
            ended = self._tested(self.order["tests"])
        except Closed:
            return "lost", ""
        return ("lost", "") if self._peer.closed else ended  # a bare `except:` of a test may have swallowed it

    def name(self, name: str) -> Any:
        """What the program calls `name`. Raises KeyError where it has no such name."""
        answer = self._peer.ask({"do": "name", "name": name})
        if "module" in answer:
            return _module(str(answer["module"]), name)
        if "exception" in answer:
            return self._exception([str(kind) for kind in answer["exception"]])
        if "value" not in answer:
            raise KeyError(name)
        return self._in(answer["value"])

    def _tested(self, tests: list[str]) -> tuple[str, str]:
        space = Names(self, given(self.order["prelude"]), defined(self.order["reference"]))
        try:
            for test in tests:
                exec(compile(test, "<test>", "exec"), space)
        except AssertionError as error:
            return "assertion", str(error)
        except MemoryError:
            return "memory", "out of memory"
        except Closed:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever else ends a test, it has not passed
            return "exception", f"{self._named(error)}: {error}"
        return "passed", ""

    def _named(self, error: BaseException) -> str:
        return "live object" if isinstance(error, LiveObject) else type(error).__name__

    def _ask(self, operation: str, *arguments: Any) -> Any:
        return self._in(self._answer({"do": operation, "args": [self._out(each) for each in arguments]})["value"])

    def _call(self, function: Remote, *arguments: Any, **named: Any) -> Any:
        answer = self._answer({
            "do": "call",
            "args": [self._out(each) for each in (function, *arguments)],
            "named": {name: self._out(each) for name, each in named.items()},
        })  # fmt: skip
        passed = (*arguments, *named.values())
        for place, packed in answer.get("changed", ()):
            _change(passed[place], self._in(packed))
        return self._in(answer["value"])

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        answer = self._peer.ask(request)
        if "error" in answer:
            raise self._raised(answer["error"], iterating=request["do"] == "next")
        return answer

    def _raised(self, described: dict[str, Any], *, iterating: bool) -> Exception:
        kind = self._exception([str(name) for name in described["kinds"]])
        if issubclass(kind, StopIteration) and not iterating:
            kind = RuntimeError  # it would end a loop of the test's around the call, and skip what is left of it
        try:
            return kind(*self._in(described["args"]))
        except TypeError:
            return RuntimeError(f"{kind.__name__}: {described['text']}")

    def _exception(self, kinds: list[str]) -> type[Exception]:
        """A class of the program's name, under the first of Python's own exceptions that it comes from."""
        own = next((kind for name in kinds if (kind := _builtin_exception(name)) is not None), Exception)
        if own.__name__ == kinds[0]:
            return own
        return self._exceptions.setdefault(kinds[0], type(kinds[0], (own,), {}))

    def _callback(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("do") != "callback":
            return {"error": "no such request"}
        function = self._callbacks[request["of"]]
        named = {name: self._in(each) for name, each in request["named"].items()}
        try:
            return {"value": self._out(function(*[self._in(each) for each in request["args"]], **named))}
        except Closed:
            raise
        except BaseException as error:  # noqa: BLE001  # the test's own function; the program is told that it failed
            return {"error": f"{type(error).__name__}: {error}"}

    def _out(self, value: Any) -> Any:
        return pack(value, self._mark)

    def _in(self, packed: Any) -> Any:
        return unpack(packed, self._resolve)

    def _mark(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Remote):
            return {"t": "yours", "v": value._number}
        if isinstance(value, _CALLABLE):
            self._callbacks.append(value)
            return {"t": "callback", "v": len(self._callbacks) - 1}
        if type(value).__module__ != "builtins" and hasattr(value, "__dict__"):
            return {"t": "rebuilt", "v": [type(value).__name__, self._out(vars(value))]}
        raise LiveObject(f"a {type(value).__name__} cannot be passed to the program as data")

    def _resolve(self, mark: dict[str, Any]) -> Any:
        if mark["t"] != "live":
            raise LiveObject("the program sent what is no value")
        number, kind, coroutine = mark["v"]
        remote = Remote(int(number), str(kind), self._ask, self._call)
        return self._awaited(remote) if coroutine else remote

    async def _awaited(self, remote: Remote) -> Any:
        return self._ask("await", remote)


class Names(dict[str, Any]):
    """The tests' global names; what they do not define is looked up when it is used, each time anew."""

    def __init__(self, judge: Judge, own: dict[str, Any], reference: frozenset[str] | None) -> None:
        super().__init__(own, __name__="answer", __builtins__=builtins)
        self._judge = judge
        self._reference = reference

    def __missing__(self, name: str) -> Any:
        """The program's, unless it is one of Python's that the reference solution does not define itself."""
        foreign = not hasattr(builtins, name) if self._reference is None else name in self._reference
        if not foreign:
            raise KeyError(name)
        return self._judge.name(name)


def given(prelude: str) -> dict[str, Any]:
    """Names that the beginning given to the model defines itself: its imports and finished helper functions."""
    if not prelude.strip():
        return {}
    space: dict[str, Any] = {"__name__": "answer"}
    try:
        tree = ast.parse(prelude)
        exec(compile(prelude, "<given>", "exec"), space)
    except (SyntaxError, ImportError):
        return {}  # it ends amid a statement, or needs a package that is not here: it defines nothing on its own
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in functions:
        if node is tree.body[-1] or _is_unfinished(node):  # the last is what the model was to go on with
            space.pop(node.name, None)
    return space


def defined(reference: str) -> frozenset[str] | None:
    """Names the reference solution defines or imports; None where there is none that can be read."""
    try:
        tree = ast.parse(reference)
    except (SyntaxError, ValueError):
        return None
    names: set[str] = set()
    nodes: list[ast.AST] = list(tree.body)
    while nodes:  # not into functions and classes: what is local there is no name a test could use
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
        nodes += ast.iter_child_nodes(node)
    return frozenset(names) or None


def _is_unfinished(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(isinstance(each, ast.Pass) or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
               for each in node.body)  # fmt: skip


def _module(real: str, name: str) -> Any:
    """Our own copy of a module that the program imported, never the program's."""
    if real.split(".")[0] not in sys.stdlib_module_names:
        raise LiveObject(f"the module {name} is not Python's own")
    return importlib.import_module(real)


def _builtin_exception(name: str) -> type[Exception] | None:
    kind = getattr(builtins, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _change(own: Any, new: Any) -> None:
    """Makes `own`, an argument of the test's, what the program made of its copy."""
    if isinstance(own, list | bytearray) and isinstance(new, type(own)):
        own[:] = new
    elif isinstance(own, dict | set | deque) and isinstance(new, dict | set | deque):
        own.clear()
        own.update(new) if isinstance(own, dict | set) else own.extend(new)


def main() -> None:
    """Writes one line of JSON, how the item ended, and ends."""
    judge = Judge()
    report = os.dup(1)
    silence()
    kind, detail = judge.verdict()
    line = json.dumps({"kind": kind, "detail": detail[:500]})
    os.write(report, line.encode() + b"\n")
    os._exit(0)
