"""`qtool explain`: what one named thing is, as its author wrote it."""

from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    words: Annotated[list[str], typer.Argument(metavar="[KIND] NAME", help="A name that `qtool list` shows.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Explain a method, observer, metric, scorer, reader, backend, task, scheme, calibration set or bundled model.

    Where several kinds share a name, all are explained; write the kind first to see one: `qtool explain metric exact`.
    """
    from qtool.front_door.looking import explain

    found = explain(*words)
    text = "\n\n".join(f"{entry.kind} {entry.name}\n\n{entry.documentation}" for entry in found)
    show(found[0] if len(found) == 1 else {"explained": found}, as_json, text)
