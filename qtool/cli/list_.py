"""`qtool list`: what can be named in a plan or on the command line."""

from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    kind: Annotated[str | None, typer.Argument(help="Only this kind: schemes, methods, observers, tasks, ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List reference models, schemes, methods, observers, tasks, metrics and calibration sets."""
    from qtool.cli.names import KINDS, descriptions, singular

    kinds = KINDS if kind is None else (singular(kind),)
    chosen = {f"{each}s": descriptions(each) for each in kinds}
    width = max(len(name) for entries in chosen.values() for name in entries)
    lines = []
    for name, entries in chosen.items():
        lines.append(f"{name}:")
        lines += [f"  {entry:<{width}}  {text}" for entry, text in entries.items()]
    show(chosen, as_json, "\n".join(lines))
