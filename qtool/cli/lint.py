"""`qtool lint`: what a serving program will refuse, misread or run slowly of a checkpoint, before it is uploaded."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    variant: Annotated[Path, typer.Argument(help="Folder of a variant, bundle or quantized model, or a .gguf file.")],
    target: Annotated[str, typer.Option(help="vllm, sglang, transformers, llama.cpp or gptqmodel.")],
    gpu: Annotated[
        str | None, typer.Option(help="GPU that will serve it, such as h100, or a compute capability such as 8.6.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Hold a quantized checkpoint against a serving program's rules; exit code 6 if it will not load or is misread."""
    from qtool.errors import QuantizationError
    from qtool.front_door.looking import lint

    found = lint(variant, target=target, gpu=gpu)
    show(found, as_json, found.table())
    if found.stops:
        raise typer.Exit(QuantizationError.exit_code)
