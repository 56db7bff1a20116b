"""Mixed precision for a size: measures the layers, then lifts those that are worth their bytes."""

from dataclasses import replace
from pathlib import Path

from qtool.formats.schemes import SCHEMES, LayerScheme
from qtool.formats.tensor_names import weights_as_used
from qtool.models.architecture import describe
from qtool.models.checkpoint import open_checkpoint
from qtool.progress import Progress
from qtool.quantize.request.layer_policy import Overrides, ladder, within_budget
from qtool.quantize.request.recipe import BUDGET, option, parse_budget
from qtool.quantize.request.selection import select
from qtool.quantize.request.sensitivity import measure, stored_bytes
from qtool.records.sensitivity import Sensitivity
from qtool.records.variant import Activations, Recipe


def choose_overrides(model: Path, found: Sensitivity, budget: str) -> Overrides:
    """The layers to lift, and to what, so that the variant takes at most `budget`."""
    checkpoint = open_checkpoint(model)
    saved = sum(unit.base_bytes - unit.bytes for unit in found.units)
    return within_budget(
        found,
        smallest_bytes=checkpoint.bytes - saved,
        budget_bytes=parse_budget(budget, checkpoint.bytes),
        eight_bits=eight_bit_sizes(model, found.recipe),
    )


def eight_bit_sizes(model: Path, recipe: Recipe) -> dict[str, int]:
    """Size of each layer in 8-bit weights; empty where the recipe's own scheme is no smaller."""
    if recipe.scheme != "w4a16" or recipe.format != "compressed-tensors":
        return {}
    checkpoint = weights_as_used(model)
    architecture = describe(model)
    scheme = LayerScheme("w8a16", recipe.group_size, recipe.symmetric, "none")
    chosen = select(architecture, recipe).schemes
    return {
        layer.name: stored_bytes(layer, scheme, recipe, checkpoint.dtype(layer.weight))
        for layer in architecture.linears
        if layer.name in chosen
    }


def resolved(model: Path, recipe: Recipe, rows: tuple[tuple[int, ...], ...], progress: Progress) -> Recipe:
    """`recipe` with the option `budget` turned into the layers it stands for."""
    budget = option(recipe, BUDGET, "")
    if not budget:
        return recipe
    found = measure(model, plain(recipe), rows, progress=progress)
    return _lifted(recipe, choose_overrides(model, found, budget))


def plain(recipe: Recipe) -> Recipe:
    """`recipe` as sensitivity measures it: rounded to nearest, activations per token, every layer by its own scheme."""
    activations: Activations = "dynamic" if SCHEMES[recipe.scheme].rounds_inputs else "none"
    return replace(recipe, options=(), overrides=(), method="rtn", activations=activations, observer=None)


def rungs(model: Path, recipe: Recipe, found: Sensitivity, *, tries: int) -> tuple[Recipe, ...]:
    """Up to `tries` recipes of growing size, the first as asked, the last with every layer lifted that is quantized:
    steps of equal bytes, each with the layers that are most worth theirs. A budget ends the climb."""
    saved = sum(unit.base_bytes - unit.bytes for unit in found.units)
    checkpoint, sizes = open_checkpoint(model), eight_bit_sizes(model, found.recipe)
    smallest = checkpoint.bytes - saved
    budget = option(recipe, BUDGET, "")
    top = parse_budget(budget, checkpoint.bytes) if budget else checkpoint.bytes
    climb: list[tuple[int, Overrides]] = [(smallest, ())]
    for overrides in ladder(found, eight_bits=sizes):
        size = smallest + _extra_bytes(found, dict(overrides), sizes)
        if size <= top and len(climb[-1][1]) < len([layer for unit in found.units for layer in unit.layers]):
            climb.append((size, overrides))
    largest = climb[-1][0]
    targets = [smallest + (largest - smallest) * step / max(1, tries - 1) for step in range(tries)]
    chosen = [max((rung for rung in climb if rung[0] <= target + 1e-6), key=lambda rung: rung[0]) for target in targets]
    return tuple(dict.fromkeys(_lifted(recipe, overrides) for _, overrides in chosen))


def _extra_bytes(found: Sensitivity, overrides: dict[str, str], eight_bits: dict[str, int]) -> int:
    total = 0
    for unit in found.units:
        scheme = overrides.get(unit.layers[0])
        if scheme is not None:
            size = unit.base_bytes if scheme == "base" else sum(eight_bits[layer] for layer in unit.layers)
            total += size - unit.bytes
    return total


def _lifted(recipe: Recipe, overrides: Overrides) -> Recipe:
    """`recipe` without its budget and with `overrides`; what the recipe itself says of a layer comes first."""
    options = tuple((name, value) for name, value in recipe.options if name != BUDGET)
    together = dict(overrides) | dict(recipe.overrides)
    return replace(recipe, options=options, overrides=tuple(sorted(together.items())))
