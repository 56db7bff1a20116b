"""`qtool schema`: the published form of report.json and of a plan."""

from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    name: Annotated[str, typer.Argument(help="report or plan.")],
    as_json: Annotated[bool, typer.Option("--json", help="The same: a schema is JSON.")] = False,
) -> None:
    """Print the JSON Schema of report.json or of a plan, for editors and for programs that read reports."""
    from qtool.front_door.reporting import schema

    show(schema(name), True, "")
