"""`qtool version`: the versions of everything that numbers depend on."""

from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the versions of qtool, Python and the packages that results depend on."""
    from qtool.front_door.looking import version

    found = version()
    width = max(map(len, found))
    show(found, as_json, "\n".join(f"{name.ljust(width)}  {number}" for name, number in found.items()))
