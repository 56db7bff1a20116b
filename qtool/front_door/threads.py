"""`threads` of every function that computes."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, cast

from qtool.machine.threads import computing_with

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def on_threads(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """`function`, computed with its argument `threads`; None: no more than the cores this process really has."""

    @wraps(function)
    def run(*args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        with computing_with(cast("int | None", kwargs.get("threads"))):
            return function(*args, **kwargs)

    return run
