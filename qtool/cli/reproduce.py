"""`qtool reproduce`: whether a bundle's variant can be made again to the byte, and if not, which input moved."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show, stage_progress


def command(
    bundle: Annotated[Path, typer.Argument(help="Folder that `qtool bundle` wrote.")],
    model: Annotated[
        str | None, typer.Option(help="The base: a folder, reference name or hub id (default: the plan's).")
    ] = None,
    sets_dir: Annotated[Path | None, typer.Option(help="Folder of your own calibration sets.")] = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Make a bundle's variant again from the plan lock in it and compare every tensor; exit code 7 if one differs."""
    stage_progress(quiet).note(f"{bundle}: making its variant again")
    from qtool.errors import MismatchError
    from qtool.front_door.publishing import reproduce

    found = reproduce(bundle, model=model, sets_dir=sets_dir, threads=threads, quiet=quiet)
    show(found, as_json, found.table())
    if not found.reproduced:
        raise typer.Exit(MismatchError.exit_code)
