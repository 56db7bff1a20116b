"""`qtool quantize`: one variant of a model, verified before it is called done."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qtool.cli.output import show, stage_progress

if TYPE_CHECKING:
    from qtool.progress import Progress
    from qtool.records.variant import Recipe


def command(
    model: Annotated[str, typer.Argument(help="Reference name, folder or hub id of the base model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the variant.")],
    scheme: Annotated[str, typer.Option(help="w4a16, w8a16, w8a8, fp8, nf4, int8, or base.")] = "w4a16",
    method: Annotated[str, typer.Option(help="How the numbers are found; `qtool list methods`.")] = "rtn",
    group_size: Annotated[
        int | None, typer.Option(help="Columns that share a scale; -1: whole row. Default: the widest of 128, 64, 32.")
    ] = None,
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="Grids with a zero point.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="Folder that `qtool calibrate` wrote.")] = None,
    activations: Annotated[str | None, typer.Option(help="8-bit activations: dynamic (per token) or static.")] = None,
    observer: Annotated[str | None, typer.Option(help="Whose ranges static activations use.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Layer to leave alone; repeats. Default: lm_head.")] = None,
    override: Annotated[list[str] | None, typer.Option(help="LAYER=SCHEME for a single layer; repeats.")] = None,
    layout: Annotated[str, typer.Option("--format", help="compressed-tensors or gptq.")] = "compressed-tensors",
    setting: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE option of the method; repeats.")] = None,
    name: Annotated[str | None, typer.Option(help="The variant's name. Default: the output folder's.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when a layer got another method than was asked.")
    ] = False,
    max_fallbacks: Annotated[float, typer.Option(help="With --strict: the share of layers that may.")] = 0.0,
    plan_only: Annotated[bool, typer.Option("--plan-only", help="Measure one block, print the cost, stop.")] = False,
    verify_whole: Annotated[
        bool | None,
        typer.Option("--verify-whole/--verify-streamed", help="Load the result whole with transformers, or never."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write one 8- or 4-bit variant of a model, with a ledger of what was done to each layer."""
    from qtool.models.locate import locate
    from qtool.models.tokenizer import load_tokenizer
    from qtool.quantize.stage import quantize
    from qtool.report.variant_text import variant_text

    progress = stage_progress(quiet)
    folder = locate(model)
    load_tokenizer(folder)  # a variant that cannot be asked anything is of no use: say so before the work
    fields: dict[str, Any] = {
        "scheme": scheme,
        "method": "baseline" if scheme == "base" else method,
        "symmetric": not asymmetric,
        "activations": activations or "none",
        "observer": observer,
        "skip": skip if skip is not None else ["lm_head"],
        "format": layout,
        "options": [_pair(text, "--set", "KEY=VALUE") for text in setting or ()],
        "overrides": [_pair(text, "--override", "LAYER=SCHEME") for text in override or ()],
    }
    recipe = _recipe(fields, group_size, folder, progress)
    called = name or output.name
    if plan_only:
        _plan_only(folder, recipe, called, calibration, progress, device, as_json)
        return
    variant = quantize(
        folder,
        recipe,
        output,
        name=called,
        calibration=calibration,
        progress=progress,
        strict=max_fallbacks if strict else None,
        whole_check=verify_whole,
        device=device,
    )
    show(variant, as_json, f"{variant_text(variant, layers=False)}\n\n{output}")


def _pair(text: str, option: str, form: str) -> list[str]:
    from qtool.errors import UsageError

    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise UsageError(f"{option} {text!r}: write it as {form}")
    return [key, value]


def _recipe(fields: dict[str, Any], group_size: int | None, folder: Path, progress: "Progress") -> "Recipe":
    from qtool.models.architecture import describe
    from qtool.quantize.recipe import widest_group
    from qtool.records.variant import Recipe
    from qtool.store.codec import decode

    recipe = decode(Recipe, fields | {"group_size": -1 if group_size is None else group_size}, source="qtool quantize")
    if group_size is not None or recipe.scheme != "w4a16":
        return recipe
    linears = describe(folder).linears
    chosen = widest_group([layer.columns for layer in linears if layer.block is not None])
    progress.note(f"group size {'of the whole row' if chosen == -1 else chosen}: the widest that divides every layer")
    return decode(Recipe, fields | {"group_size": chosen}, source="qtool quantize")


def _plan_only(
    folder: Path,
    recipe: "Recipe",
    name: str,
    calibration: Path | None,
    progress: "Progress",
    device: str,
    as_json: bool,
) -> None:
    from qtool.quantize.estimate import estimate, estimate_text

    found = estimate(folder, recipe, name=name, calibration=calibration, progress=progress, device=device)
    if found is None:
        show({"name": name}, as_json, f"{name}: method {recipe.method!r} works on the whole model; nothing to measure")
    else:
        show(found, as_json, estimate_text(found))
