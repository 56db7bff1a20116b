"""`qtool quantize`: one variant of a model, verified before it is called done."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show


def _scheme(name: str) -> str:
    """`name`, if it is a scheme: told before anything heavy is loaded."""
    from qtool.errors import UnknownName

    if name not in _schemes():
        raise UnknownName("scheme", name, _schemes())
    return name


def _schemes() -> list[str]:
    from typing import get_args

    from qtool.records.variant import SchemeName

    return list(get_args(SchemeName))


def _methods() -> list[str]:
    from qtool.catalog import names

    return list(names("qtool.quantize.methods"))


def _method(name: str) -> str:
    """`name`, if it is a method, of qtool or of another package."""
    from qtool.errors import UnknownName

    known = _methods()
    if name not in known:
        raise UnknownName("method", name, known)
    return name


def command(
    model: Annotated[str, typer.Argument(help="Reference name, folder or hub id of the base model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the variant.")],
    scheme: Annotated[
        str,
        typer.Option(callback=_scheme, autocompletion=_schemes, help="w4a16, w8a16, w8a8, fp8, nf4, int8, or base."),
    ] = "w4a16",
    method: Annotated[
        str,
        typer.Option(
            callback=_method, autocompletion=_methods, help="How the numbers are found; `qtool list methods`."
        ),
    ] = "rtn",
    group_size: Annotated[
        int | None, typer.Option(help="Columns that share a scale; -1: whole row. Default: the widest of 128, 64, 32.")
    ] = None,
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="Grids with a zero point.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="Folder that `qtool calibrate` wrote.")] = None,
    activations: Annotated[str | None, typer.Option(help="8-bit activations: dynamic (per token) or static.")] = None,
    observer: Annotated[str | None, typer.Option(help="Whose ranges static activations use.")] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="Layer to leave alone, beside the output head; repeats.")
    ] = None,
    include_head: Annotated[
        bool, typer.Option("--include-head", help="Quantize the output head too, which stays as it is by default.")
    ] = False,
    override: Annotated[list[str] | None, typer.Option(help="LAYER=SCHEME for a single layer; repeats.")] = None,
    layout: Annotated[str, typer.Option("--format", help="compressed-tensors or gptq.")] = "compressed-tensors",
    option: Annotated[list[str] | None, typer.Option(help="KEY=VALUE option of the method; repeats.")] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", hidden=True)] = None,
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
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write one 8- or 4-bit variant of a model, with a ledger of what was done to each layer."""
    asked: dict[str, Any] = {
        "scheme": scheme,
        "method": method,
        "group_size": group_size,
        "asymmetric": asymmetric,
        "calibration": calibration,
        "activations": activations,
        "observer": observer,
        "skip": skip,
        "include_head": include_head,
        "format": layout,
        "options": _pairs([*(option or ()), *(setting or ())], "--option", "KEY=VALUE"),
        "overrides": _pairs(override, "--override", "LAYER=SCHEME"),
        "name": name or output.name,
        "device": device,
        "threads": threads,
        "quiet": quiet,
    }
    if plan_only:
        from qtool.front_door.quantization import estimate
        from qtool.report.texts.estimate_text import estimate_text

        found = estimate(model, **asked)
        nothing = f"{asked['name']}: method {method!r} works on the whole model; nothing to measure"
        text = nothing if found is None else estimate_text(found)
        show({"name": asked["name"]} if found is None else found, as_json, text)
        return
    from qtool.front_door.quantization import quantize
    from qtool.report.texts.variant_text import variant_text

    variant = quantize(model, output, strict=strict, max_fallbacks=max_fallbacks, verify_whole=verify_whole, **asked)
    show(variant, as_json, f"{variant_text(variant, layers=False)}\n\n{output}")


def _pairs(texts: list[str] | None, option: str, form: str) -> dict[str, str]:
    from qtool.errors import UsageError

    pairs = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        if not (key and sign and value):
            raise UsageError(f"{option} {text!r}: write it as {form}")
        if key in pairs:
            raise UsageError(f"{option} {key} is given twice; give it once")
        pairs[key] = value
    return pairs
