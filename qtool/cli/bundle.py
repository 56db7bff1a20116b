"""`qtool bundle`: the serving-ready artifact of one variant of a run."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show, stage_progress


def command(
    run: Annotated[Path, typer.Argument(help="Folder that `qtool run` wrote, with its report.")],
    variant: Annotated[
        str | None, typer.Option("--variant", help="Bundle this variant instead of the recommended one; recorded.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New folder; default RUN/bundle.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a bundle that is already there.")] = False,
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Bundle a variant whose verification failed; recorded.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Write weights, tokenizer, golden prompts, settings, model card and deployment files as one folder."""
    from qtool.store.layout import RunFolder

    target = output or RunFolder(run).bundle
    stage_progress(quiet).note(f"{target}: bundling {variant or 'the recommended variant'} of {run}")
    from qtool.front_door.shipping import bundle

    result = bundle(
        run, variant=variant, output=target, replace=replace, allow_unverified=allow_unverified, quiet=quiet
    )
    size = sum(entry.bytes for entry in result.files)
    text = (
        f"{target}: {result.variant.name}, {len(result.files)} files, {size:,} bytes, "
        f"{len(result.golden)} golden prompts\n{result.chosen}\nserve it: qtool serve {target}"
    )
    show(result, as_json, text)
