"""`qtool push`: a bundle onto the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    bundle: Annotated[Path, typer.Argument(help="Folder that `qtool bundle` wrote.")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the hub; made where it is not there.")],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to commit to (default: main).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Check every file of a bundle, then upload it in one commit; HF_ENDPOINT names another server than the hub."""
    from qtool.front_door.publishing import push

    done = push(bundle, repo, public=public, revision=revision, quiet=quiet)
    show(done, as_json, done.table())
