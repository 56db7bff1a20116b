"""`qtool explain`: a plugin's own documentation, as its author wrote it."""

from typing import Annotated

import typer

from qtool.cli.output import show

_KINDS = {
    "method": "qtool.quantize.methods",
    "observer": "qtool.calibrate.observers",
    "metric": "qtool.evaluate.metrics",
    "scorer": "qtool.evaluate.scorers",
    "reader": "qtool.evaluate.readers",
    "backend": "qtool.engine.backends",
}


def command(
    kind: Annotated[str, typer.Argument(help="task, method, observer, metric, scorer, reader or backend.")],
    name: Annotated[str, typer.Argument(help="Its name, as `qtool list` shows it.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Explain one task, or one plugin: what it does, when to use it, what it costs, when it fails."""
    from qtool import catalog
    from qtool.errors import UnknownName

    if kind not in (*_KINDS, "task"):
        raise UnknownName("kind", kind, (*_KINDS, "task"))
    text = _task(name) if kind == "task" else catalog.docstring(_KINDS[kind], name, kind=kind)
    show({"kind": kind, "name": name, "documentation": text}, as_json, text)


def _task(name: str) -> str:
    from qtool.evaluate.describe import describe
    from qtool.evaluate.tasks import load_task

    return describe(load_task(name))
