"""Which linear layers a recipe quantizes and to what, and everything of the model that the recipe does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from qtool.errors import QuantizationError, UnknownName
from qtool.formats.schemes import SCHEMES, LayerScheme
from qtool.models.architecture import Architecture, LinearLayer
from qtool.quantize.request.recipe import HEAD
from qtool.records.variant import Recipe

HEAD_KEPT = "the output head stays by default (--include-head quantizes it)"


@dataclass(frozen=True, slots=True)
class Selection:
    """`schemes`: what each quantized layer becomes. `kept`: why each other linear layer stays as it is."""

    schemes: Mapping[str, LayerScheme]
    kept: Mapping[str, str]


def select(architecture: Architecture, recipe: Recipe) -> Selection:
    """What `recipe` means for a model. Raises QuantizationError with every layer it does not fit, all at once."""
    schemes: dict[str, LayerScheme] = {}
    kept: dict[str, str] = {}
    overrides = dict(recipe.overrides)
    _refuse_unknown_names(architecture, recipe)
    for layer in architecture.linears:
        if any(_names(architecture, layer, pattern) for pattern in recipe.skip):
            kept[layer.name] = why_skipped(architecture, layer)
        elif overrides.get(layer.name) == "base":
            kept[layer.name] = "kept as asked: too sensitive"
        elif layer.beside_text:
            kept[layer.name] = "not of the text decoder (a vision or audio tower, or its projector): kept as it is"
        elif layer.name in architecture.routers:
            kept[layer.name] = "decides which experts run, or how much they count: never quantized"
        elif recipe.group_size > layer.columns and layer.name not in overrides:
            kept[layer.name] = f"its {layer.columns} columns are fewer than a group of {recipe.group_size}"
        else:
            schemes[layer.name] = _layer_scheme(recipe, overrides.get(layer.name, recipe.scheme))
    problems = _problems(architecture, recipe, schemes)
    if problems:
        raise QuantizationError("\n".join(problems))
    return Selection(schemes, kept)


def why_skipped(architecture: Architecture, layer: LinearLayer) -> str:
    """Why a layer that the recipe skips stays as it is."""
    return HEAD_KEPT if layer.name == architecture.head else "skipped as asked"


def _layer_scheme(recipe: Recipe, scheme: str) -> LayerScheme:
    facts = SCHEMES[scheme]
    same = scheme == recipe.scheme
    activations = recipe.activations if same or recipe.activations in facts.activations else facts.activations[0]
    group_size = recipe.group_size if same or recipe.group_size in facts.groups else -1
    return LayerScheme(scheme, group_size, recipe.symmetric or not facts.asymmetric, activations)


def _names(architecture: Architecture, layer: LinearLayer, pattern: str) -> bool:
    if pattern == HEAD and layer.name == architecture.head:
        return True
    return pattern == layer.name or layer.name.endswith("." + pattern) or fnmatchcase(layer.name, pattern)


def _refuse_unknown_names(architecture: Architecture, recipe: Recipe) -> None:
    names = [layer.name for layer in architecture.linears]
    for pattern in (*recipe.skip, *(name for name, _ in recipe.overrides)):
        if pattern != HEAD and not any(_names(architecture, layer, pattern) for layer in architecture.linears):
            raise UnknownName("layer", pattern, names)
    for name, scheme in recipe.overrides:
        if scheme not in SCHEMES:
            raise UnknownName(f"scheme of layer {name}", scheme, SCHEMES)


def _problems(architecture: Architecture, recipe: Recipe, schemes: Mapping[str, LayerScheme]) -> list[str]:
    chosen = [layer for layer in architecture.linears if layer.name in schemes]
    if not chosen:
        return ["nothing is left to quantize: every linear layer is skipped"]
    problems = []
    if transposed := [layer.name for layer in chosen if layer.transposed]:
        problems.append(
            f"{len(transposed)} layers are Conv1D (first {transposed[0]}), which method {recipe.method!r} cannot "
            "quantize; use rtn or gptq"
        )
    if architecture.tied and architecture.head in schemes:
        problems.append(
            f"{architecture.head}: shares its weight with the embedding, so it stays; leave out --include-head"
        )
    problems += _indivisible(chosen, schemes)
    if recipe.format == "gptq":
        problems += _unpackable(chosen, schemes)
        inside = [layer for layer in architecture.linears if layer.block is not None]
        if left := [layer.name for layer in inside if layer not in chosen and layer.name not in architecture.routers]:
            problems.append(f"GPTQ quantizes every layer of a block; use compressed-tensors to skip {', '.join(left)}")
    return problems + _split_groups(chosen, schemes) + _split_experts(architecture, recipe, schemes)


def _indivisible(chosen: list[LinearLayer], schemes: Mapping[str, LayerScheme]) -> list[str]:
    by_columns: dict[tuple[int, int], list[str]] = {}
    for layer in chosen:
        size = schemes[layer.name].group_size
        if size != -1 and layer.columns % size:
            by_columns.setdefault((layer.columns, size), []).append(layer.name)
    problems = []
    for (columns, size), names in sorted(by_columns.items()):
        fitting = [str(group) for group in (128, 64, 32) if columns % group == 0]
        problems.append(
            f"{columns} columns are no multiple of group_size={size}; use {' or '.join([*fitting, '-1 (whole row)'])}, "
            f"or skip: {', '.join(names)}"
        )
    return problems


def _unpackable(chosen: list[LinearLayer], schemes: Mapping[str, LayerScheme]) -> list[str]:
    problems = []
    for layer in chosen:
        each = 32 // schemes[layer.name].row.bits
        if layer.rows % each or layer.columns % each:
            problems.append(
                f"{layer.name}: GPTQ packs {each} codes a word, and {layer.rows} x {layer.columns} is no multiple of it"
            )
    return problems


def _split_groups(chosen: list[LinearLayer], schemes: Mapping[str, LayerScheme]) -> list[str]:
    problems = []
    for group in sorted({layer.fused_group for layer in chosen if layer.fused_group}):
        if len({schemes.get(name) for name in group}) > 1:
            problems.append(f"{', '.join(group)}: servers merge these; give all one scheme, or skip all")
    return problems


def _split_experts(architecture: Architecture, recipe: Recipe, schemes: Mapping[str, LayerScheme]) -> list[str]:
    """Servers hold all experts of a block in one tensor, and calibration watches the input of all, not of each."""
    problems = []
    for place in sorted({layer.experts for layer in architecture.linears if layer.experts}):
        found = {schemes.get(layer.name) for layer in architecture.linears if layer.experts == place}
        if len(found) > 1:
            problems.append(f"{place}: servers hold all experts of a block together; give all one scheme, or skip all")
        if recipe.activations == "static" and any(scheme and scheme.activations == "static" for scheme in found):
            problems.append(f"{place}: no range is calibrated for a single expert; use dynamic activations, or skip it")
    return problems
