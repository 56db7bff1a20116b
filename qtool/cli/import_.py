"""`qtool import`: a checkpoint that somebody else made, as a variant to evaluate and serve."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show


def command(
    checkpoint: Annotated[str, typer.Argument(help="Folder or hub id; compressed-tensors, GPTQ, AWQ, or unquantized.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the variant.")],
    base: Annotated[str | None, typer.Option(help="The model it was made from: reference name, folder or id.")] = None,
    name: Annotated[str | None, typer.Option(help="The variant's name. Default: the output folder's.")] = None,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Take in an existing checkpoint as a variant; every tensor is read, and the unknown is refused."""
    from qtool.front_door.quantization import import_variant
    from qtool.report.texts.variant_text import variant_text

    variant = import_variant(checkpoint, output, base=base, name=name, threads=threads, quiet=quiet)
    show(variant, as_json, f"{variant_text(variant, layers=False)}\n\n{output}")
