"""`qtool list`: what can be named in a plan or on the command line."""

from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: schemes, methods, observers, tasks, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List reference models, schemes, methods, observers, tasks, metrics and calibration sets."""
    from qtool.front_door.looking import names

    chosen = names(kind)
    width = max(len(name) for entries in chosen.values() for name in entries)
    lines = []
    for heading, entries in chosen.items():
        lines.append(f"{heading}:")
        lines += [f"  {entry:<{width}}  {text}" for entry, text in entries.items()]
    show(chosen, as_json, "\n".join(lines))
