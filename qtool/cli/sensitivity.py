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
    task: Annotated[str | None, typer.Option(help="Also score each layer on the items of this task.")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="With --task: how many. Default: as its file says.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keeps what is found, so that a killed run goes on. Default: sensitivity/MODEL."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score each layer by what the model loses when it alone is rounded, and when it alone is kept."""
    from qtool.errors import UsageError
    from qtool.models.locate import locate
    from qtool.quantize.mixed import choose_overrides
    from qtool.quantize.order import measuring_rows
    from qtool.quantize.sensitivity import measure, sensitivity_text
    from qtool.records.variant import Recipe
    from qtool.store.codec import decode
    from qtool.store.run_directory import locked, write_record

    if task is None and items is not None:
        raise UsageError("--items goes with --task NAME")
    base = locate(model)
    fields = {"scheme": scheme, "method": "rtn", "group_size": group_size}
    recipe = decode(Recipe, fields, source="qtool sensitivity")
    rows, progress = measuring_rows(base, calibration), stage_progress(quiet)
    place = folder or Path("sensitivity") / base.name
    record: object
    if task is None:
        with locked(place.parent / f".{place.name}.sensitivity.lock", holds=str(place)):
            record = found = measure(base, recipe, rows, progress=progress, kept=place / "kl.trials.jsonl")
        text = sensitivity_text(found)
    else:
        from qtool.pipeline_sensitivity import TaskTrials, measure_task, task_text

        trials = TaskTrials(base, recipe, task, items, place)
        record = scored = measure_task(trials, rows, progress=progress)
        found, text = scored.kl, task_text(scored)
    if output is not None:
        write_record(output, record)
    if budget is not None:
        lifted = choose_overrides(base, found, budget)
        text += f"\n\nfor {budget}: " + (" ".join(f"--override {layer}={scheme}" for layer, scheme in lifted) or "none")
    show(record, as_json, text)
