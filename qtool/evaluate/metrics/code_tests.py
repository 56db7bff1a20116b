"""Code that passes its tests.

What it does: runs the extracted code in a sandbox (own process, no network, no files, limits on time, memory and
processes) and the item's tests in another, which calls the code and is given values, never objects: 1 if all pass,
else 0. Code cannot reach its tests or their verdict. Notes tell a wrong result from an exception, a syntax error ("="
written for "==" apart), a time-out and code that ended its own process. `metric_options.prefix_field` names a prompt
field to put before the code, for completions of a given beginning; `metric_options.seconds` is the limit of CPU time.
When to use it: written or completed functions; pass@1 when decoding is greedy.
What it costs: about a fifth of a second of processor time per item.
When it fails: where neither bubblewrap nor namespaces can be had, it is refused unless the user insists. Tests that
need the code's objects in their own interpreter (subclass its classes, patch it, do arithmetic between its objects and
their own) count as wrong with the note "live object"; the reference solutions tell whether a set has such tests.
"""

import ast
import re

from qtool.errors import DataError
from qtool.evaluate import sandbox
from qtool.evaluate.contract import Answer, Direction, Grade
from qtool.evaluate.items.extract import extract
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

DIRECTION: Direction = "higher"
BINARY = True
SLOW = True
PERFECT = 1.0
UNIT: Unit = "fraction"

_ONE_OF_ITS_OWN = re.compile(r"(?:async\s+def|def|import|from|class)\s|@|[A-Za-z_]\w*\s*=\s*lambda")


def prepare(task: TaskSpec) -> None:
    """Raises CapacityError where no sandbox works, before a model is loaded."""
    sandbox.choose(str(task.metric_options.get("sandbox", "auto")))


def check(item: Item, task: TaskSpec) -> None:
    """Raises DataError where there is nothing to run the code against."""
    if not item.tests:
        raise DataError("it has no tests to run its code against")


def grade(item: Item, answer: Answer, task: TaskSpec) -> Grade:
    """0 or 1, with a note on how the program ended."""
    if not item.tests:
        raise DataError(f"item {item.id!r}: it has no tests to run its code against")
    extracted = extract(task, item, answer)
    if extracted is None:
        return Grade(score=0.0, extracted="", parsed=False, notes=(("code", "empty"),))
    name = sandbox.choose(str(task.metric_options.get("sandbox", "auto")))
    limits = sandbox.Limits(cpu_seconds=int(task.metric_options.get("seconds", sandbox.USUAL.cpu_seconds)))
    outcome = sandbox.execute(
        _program(item, extracted, task), item.tests, limits=limits, sandbox=name, known=_known(item, task)
    )
    if outcome.kind == "passed":
        return Grade(score=1.0, extracted=extracted)
    return Grade(score=0.0, extracted=extracted, notes=(("code", _named(outcome)),))


def _program(item: Item, extracted: str, task: TaskSpec) -> str:
    """The code after the given beginning; a whole function comes after it too, since its imports are there."""
    field = task.metric_options.get("prefix_field")
    if field is None:
        return extracted
    beginning = item.field(str(field))
    if not _ONE_OF_ITS_OWN.match(extracted):
        return beginning + extracted
    return f"{beginning}\n{extracted}" if _is_python(beginning) else extracted


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def _known(item: Item, task: TaskSpec) -> sandbox.Known:
    """The given beginning and the reference solution: names that the tests may take from there, not from the code."""
    whole = Answer(item.answer, (), (), (), finish="stop", prompt_tokens=0, latency_ms=0.0)
    reference = extract(task, item, whole) or item.answer
    field = task.metric_options.get("prefix_field")
    prelude = "" if field is None else item.field(str(field))
    return sandbox.Known(prelude=prelude, reference=_program(item, reference, task))


def _named(outcome: sandbox.Outcome) -> str:
    if outcome.kind == "syntax" and "instead of '='" in outcome.detail:
        return "= written for =="
    if outcome.kind == "exception":
        return outcome.detail.split(":", 1)[0]
    return {"assertion": "wrong result", "syntax": "syntax error"}.get(outcome.kind, outcome.kind)
