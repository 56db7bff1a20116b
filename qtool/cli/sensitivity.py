"""`qtool sensitivity`: which layers bear fewer bits, and which do not."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show


def command(
    model: Annotated[str, typer.Argument(help="Reference name, folder or hub id of the base model.")],
    calibration: Annotated[Path, typer.Option(help="Folder that `qtool calibrate` wrote; its held-out rows measure.")],
    scheme: Annotated[str, typer.Option(help="w4a16, w8a16, w8a8 or fp8.")] = "w4a16",
    group_size: Annotated[int, typer.Option(help="Columns that share a scale; -1: whole row.")] = -1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the JSON object here.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Name the layers to keep for this size: '0.35 x base' or '1.2 MB'.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Also score each layer on the items of this task.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="With --task: how many. Default: as its file says.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keeps what is found, so that a killed run goes on. Default: sensitivity/MODEL."),
    ] = None,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score each layer by what the model loses when it alone is rounded, and when it alone is kept."""
    from qtool.front_door.layer_costs import sensitivity

    found = sensitivity(
        model,
        calibration=calibration,
        scheme=scheme,
        group_size=group_size,
        output=output,
        budget=budget,
        task=task,
        items=items,
        folder=folder,
        threads=threads,
        quiet=quiet,
    )
    show(found.task or found.kl, as_json, found.table())
