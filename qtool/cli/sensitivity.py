"""`qtool sensitivity`: which layers bear fewer bits, and which do not."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show, stage_progress


def command(
    model: Annotated[str, typer.Argument(help="Reference name, folder or hub id of the base model.")],
    calibration: Annotated[Path, typer.Option(help="Folder that `qtool calibrate` wrote; its held-out rows measure.")],
    scheme: Annotated[str, typer.Option(help="w4a16, w8a16, w8a8 or fp8.")] = "w4a16",
    group_size: Annotated[int, typer.Option(help="Columns that share a scale; -1: whole row.")] = -1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the JSON object here.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Name the layers to keep for this size: '0.35 x base' or '1.2 MB'.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score each layer by what the model loses when it alone is rounded, and when it alone is kept."""
    from qtool.models.locate import locate
    from qtool.quantize.mixed import choose_overrides
    from qtool.quantize.order import measuring_rows
    from qtool.quantize.sensitivity import measure, sensitivity_text
    from qtool.records.variant import Recipe
    from qtool.store.codec import decode
    from qtool.store.run_directory import write_record

    folder = locate(model)
    fields = {"scheme": scheme, "method": "rtn", "group_size": group_size}
    recipe = decode(Recipe, fields, source="qtool sensitivity")
    found = measure(folder, recipe, measuring_rows(folder, calibration), progress=stage_progress(quiet))
    if output is not None:
        write_record(output, found)
    text = sensitivity_text(found)
    if budget is not None:
        lifted = choose_overrides(folder, found, budget)
        text += f"\n\nfor {budget}: " + (" ".join(f"--override {layer}={scheme}" for layer, scheme in lifted) or "none")
    show(found, as_json, text)
