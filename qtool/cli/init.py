"""`qtool init`: a first plan for a model."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show, stage_progress


def command(
    model: Annotated[str, typer.Argument(help="Reference name, folder or hub id of the base model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("plan.toml"),
    minutes: Annotated[float, typer.Option(help="Time that the whole run may take on this machine.")] = 60.0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a plan that is already there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was proposed as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Write a commented plan.toml: variants, and tasks with items and margins from the time and the power there is."""
    stage_progress(quiet).note(f"{model}: reading the model and how fast this machine reads memory")
    from qtool.front_door.proposing import init

    found = init(model, output=output, minutes=minutes, replace=replace, quiet=quiet)
    text = (
        f"{output}: {len(found.tasks)} tasks of up to {found.items} items, a margin of {found.margin_points:g} points\n"
        f"carry it out: qtool run {output}"
    )
    show(found, as_json, text)
