"""`qtool verify`: whether a bundle is whole and answers on this machine as it was measured."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show, stage_progress


def command(
    bundle: Annotated[Path, typer.Argument(help="Folder that `qtool bundle` wrote.")],
    backend: Annotated[
        str, typer.Option("--with", help="Engine that must give the answers: qtool or transformers.")
    ] = ("qtool"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Check every file of a bundle, load it, and compare its golden prompts; exit code 7 where something differs."""
    stage_progress(quiet).note(f"{bundle}: checking files, then the golden prompts with {backend}")
    from qtool.front_door.shipping import verify

    found = verify(bundle, backend=backend, device=device, threads=threads, quiet=quiet)
    show(found, as_json, found.table())
