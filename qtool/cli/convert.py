"""`qtool convert`: a variant as a file for another program."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    variant: Annotated[str, typer.Argument(help="Variant or model: folder, reference name or hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    to: Annotated[str, typer.Option(help="Format: gguf (llama.cpp, Ollama, LM Studio, OpenVINO).")] = "gguf",
    embedding: Annotated[
        str, typer.Option(help="Type of embedding and head: keep (as stored), f16, or q8_0 (rounded, and counted).")
    ] = "keep",
    pre: Annotated[
        str | None, typer.Option(help="llama.cpp's name for how the tokenizer cuts text, where qtool knows none.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite an existing file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a variant as a GGUF file. Codes and scales are copied as they are: no weight is rounded again."""
    from qtool.front_door.quantization import convert
    from qtool.report.texts.conversion_text import conversion_text

    found = convert(variant, output, to=to, embedding=embedding, pre=pre, replace=replace, quiet=quiet)
    show(found, as_json, conversion_text(found.file, found.kinds, found.compared, found.rounded, found.bytes))
