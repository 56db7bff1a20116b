"""`qtool.quantize`, its estimate, and the import of a checkpoint that somebody else made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from qtool.front_door.paths import PathLike, optional_path
from qtool.front_door.threads import on_threads
from qtool.progress import Progress, chosen_progress
from qtool.records.variant import Recipe, Variant

if TYPE_CHECKING:
    from qtool.quantize.output.conversion import Conversion
    from qtool.records.estimate import Estimate


@on_threads
def quantize(
    model: PathLike,
    output: PathLike,
    *,
    scheme: str = "w4a16",
    method: str = "rtn",
    group_size: int | None = None,
    asymmetric: bool = False,
    calibration: PathLike | None = None,
    activations: str | None = None,
    observer: str | None = None,
    skip: Sequence[str] | None = None,
    include_head: bool = False,
    overrides: Mapping[str, str] | None = None,
    format: str = "compressed-tensors",
    options: Mapping[str, str] | None = None,
    name: str | None = None,
    strict: bool = False,
    max_fallbacks: float = 0.0,
    verify_whole: bool | None = None,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Variant:
    """Writes one 8- or 4-bit variant of `model` to the new folder `output` and verifies it from disk; `overrides` gives
    single layers a scheme of their own, `skip` leaves layers alone beside the output head, which is quantized only with
    `include_head`; `options` are settings of the method."""
    fields = recipe_fields(
        scheme=scheme,
        method=method,
        asymmetric=asymmetric,
        activations=activations,
        observer=observer,
        skip=skip,
        include_head=include_head,
        overrides=overrides,
        format=format,
        options=options,
    )
    check_names(fields)
    progress = chosen_progress(quiet)
    progress.note(f"{output}: {scheme} of {model} by {fields['method']}; opening the model")

    from qtool.models.locate import locate
    from qtool.models.tokenizer import load_tokenizer
    from qtool.quantize.stage import quantize as run

    folder = locate(str(model))
    load_tokenizer(folder)  # a variant that cannot be asked anything is of no use: say so before the work
    return run(
        folder,
        chosen_recipe(fields, group_size, folder, progress),
        Path(output),
        name=name or Path(output).name,
        calibration=optional_path(calibration),
        progress=progress,
        strict=max_fallbacks if strict else None,
        whole_check=verify_whole,
        device=device,
    )


@on_threads
def estimate(
    model: PathLike,
    *,
    scheme: str = "w4a16",
    method: str = "rtn",
    group_size: int | None = None,
    asymmetric: bool = False,
    calibration: PathLike | None = None,
    activations: str | None = None,
    observer: str | None = None,
    skip: Sequence[str] | None = None,
    include_head: bool = False,
    overrides: Mapping[str, str] | None = None,
    format: str = "compressed-tensors",
    options: Mapping[str, str] | None = None,
    name: str = "variant",
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> "Estimate | None":
    """What `quantize` would cost, from one block that is really made; None for a method that takes the model whole."""
    from qtool.models.locate import locate
    from qtool.quantize.request.estimate import estimate as run

    progress, folder = chosen_progress(quiet), locate(str(model))
    fields = recipe_fields(
        scheme=scheme,
        method=method,
        asymmetric=asymmetric,
        activations=activations,
        observer=observer,
        skip=skip,
        include_head=include_head,
        overrides=overrides,
        format=format,
        options=options,
    )
    recipe = chosen_recipe(fields, group_size, folder, progress)
    return run(folder, recipe, name=name, calibration=optional_path(calibration), progress=progress, device=device)


@on_threads
def import_variant(
    checkpoint: PathLike,
    output: PathLike,
    *,
    base: PathLike | None = None,
    name: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> Variant:
    """Imports an existing quantized checkpoint as a variant; reads every tensor and refuses unknown formats."""
    from qtool.models.locate import locate
    from qtool.quantize.output.importing import import_variant as run

    return run(
        locate(str(checkpoint)),
        Path(output),
        name=name or Path(output).name,
        base=None if base is None else locate(str(base)),
        progress=chosen_progress(quiet),
    )


def convert(
    variant: PathLike,
    output: PathLike,
    *,
    to: str = "gguf",
    embedding: str = "keep",
    pre: str | None = None,
    replace: bool = False,
    quiet: bool = False,
) -> "Conversion":
    """Writes a variant as a file for another program; codes and scales are copied, no weight is rounded again."""
    from qtool.errors import UnknownName
    from qtool.models.locate import locate
    from qtool.quantize.output.conversion import convert as write

    if to != "gguf":
        raise UnknownName("file format", to, ["gguf"])
    if embedding not in ("keep", "f16", "q8_0"):
        raise UnknownName("type of embedding", embedding, ["keep", "f16", "q8_0"])
    return write(
        locate(str(variant)),
        Path(output),
        progress=chosen_progress(quiet),
        embedding=cast(Literal["keep", "f16", "q8_0"], embedding),
        pre=pre,
        replace=replace,
    )


def recipe_fields(
    *,
    scheme: str,
    method: str,
    asymmetric: bool,
    activations: str | None,
    observer: str | None,
    skip: Sequence[str] | None,
    include_head: bool,
    overrides: Mapping[str, str] | None,
    format: str,
    options: Mapping[str, str] | None,
) -> dict[str, Any]:
    """The recipe as it is decoded: with the same checks and the same errors as one of a plan file."""
    from qtool.quantize.request.recipe import skipped_layers

    return {
        "scheme": scheme,
        "method": "baseline" if scheme == "base" else method,
        "symmetric": not asymmetric,
        "activations": activations or "none",
        "observer": observer,
        "skip": list(skipped_layers(skip or (), include_head=include_head)),
        "format": format,
        "options": [list(pair) for pair in (options or {}).items()],
        "overrides": [list(pair) for pair in (overrides or {}).items()],
    }


def check_names(fields: dict[str, Any]) -> None:
    """Refuses what no model can make right, before anything heavy is imported."""
    from qtool import catalog
    from qtool.errors import UnknownName
    from qtool.quantize.request.recipe import METHODS
    from qtool.store.codec import decode

    decode(Recipe, fields, source="qtool quantize")
    known = catalog.names(METHODS)
    if fields["method"] not in known:
        raise UnknownName("method", fields["method"], known)


def chosen_recipe(fields: dict[str, Any], group_size: int | None, folder: Path, progress: Progress) -> Recipe:
    """The recipe of `fields`; where no group size is given, four bits take the widest that divides every layer."""
    from qtool.models.architecture import describe
    from qtool.quantize.request.recipe import widest_group
    from qtool.store.codec import decode

    recipe = decode(Recipe, fields | {"group_size": -1 if group_size is None else group_size}, source="qtool quantize")
    if group_size is not None or recipe.scheme != "w4a16":
        return recipe
    linears = describe(folder).linears
    chosen = widest_group([layer.columns for layer in linears if layer.block is not None])
    progress.note(f"group size {'of the whole row' if chosen == -1 else chosen}: the widest that divides every layer")
    return decode(Recipe, fields | {"group_size": chosen}, source="qtool quantize")
