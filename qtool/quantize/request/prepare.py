"""An order for a variant: everything about it that can be refused is refused here, before any work."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtool import catalog
from qtool.errors import MismatchError, PlanError, QuantizationError, StoreError
from qtool.formats.schemes import SCHEMES
from qtool.formats.stored_format import stored_formats
from qtool.formats.tensor_names import StoredNames, open_as_used
from qtool.models.architecture import Architecture, describe_model
from qtool.models.checkpoint import Checkpoint
from qtool.models.completeness import refuse_incomplete
from qtool.models.identity import identify
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import unfold
from qtool.progress import Progress
from qtool.quantize.contract import BlockMethod, FolderMethod, Needs
from qtool.quantize.request.mixed import resolved
from qtool.quantize.request.recipe import BUDGET, METHODS, completed, option, recipe_problems
from qtool.quantize.request.selection import Selection, select
from qtool.records.model import ModelIdentity
from qtool.records.variant import Recipe
from qtool.store import layout
from qtool.store.digest import file_digest
from qtool.store.ranges_file import read_calibration, read_ranges, read_sequences

_MEASURED_ROWS = 8  # held-out sequences that measure a method which learns from none


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """A checked order: everything about it that can be refused has been. `weights` are those of `source` by the model's
    names, and `names` the others; both None where nothing is quantized. `others` are modules with a matrix that is no
    linear layer, each with the name of its class."""

    source: Path
    recipe: Recipe
    name: str
    identity: ModelIdentity
    architecture: Architecture
    selection: Selection
    method: BlockMethod | FolderMethod
    needs: Needs
    calibration: Path | None
    calibration_digest: str | None
    rows: tuple[tuple[int, ...], ...]
    held_out: tuple[tuple[int, ...], ...]
    input_scales: dict[str, float]
    names: StoredNames | None = None
    weights: Checkpoint | None = None
    others: tuple[tuple[str, str], ...] = ()


def prepare(model: Path, recipe: Recipe, *, name: str, calibration: Path | None, progress: Progress) -> Order:
    """Checks all that can be checked before any work, and reads what the work needs."""
    recipe = completed(recipe)
    if problems := recipe_problems(recipe):
        raise PlanError([f"variant {name}: {problem}" for problem in problems])
    method = catalog.load(METHODS, recipe.method, kind="method")
    needs: Needs = method.NEEDS
    if option(recipe, BUDGET, ""):
        if calibration is None:
            raise PlanError([f"variant {name}: a budget is kept by measuring layers; give --calibration DIR"])
        recipe = resolved(model, recipe, measuring_rows(model, calibration), progress)
    if needs.package is not None:
        catalog.require(needs.package[0], needed_by=f"method {recipe.method!r}", extra=needs.package[1])
    structure: Any = empty_model(model)
    if needs.scope == "block":
        unfold(structure)  # a method that is handed the whole folder finds transformers' own modules there
    architecture = describe_model(structure)
    weights, names = None, None
    if recipe.scheme != "base":
        weights, names = open_as_used(model, structure)
        if stored_formats(weights, architecture.linears):
            raise QuantizationError(f"{model}: is quantized already; give the base model it was made from")
        refuse_incomplete(weights, structure, names, quantized=frozenset())
    selection = Selection({}, {}) if recipe.scheme == "base" else select(architecture, recipe)
    if needs.sequences and calibration is None:
        raise PlanError([f"variant {name}: method {recipe.method!r} learns from data; give --calibration DIR"])
    if recipe.activations == "static" and calibration is None:
        raise PlanError([f"variant {name}: static activations need calibrated ranges; give --calibration DIR"])
    identity = identify(model)
    rows, held_out = _sequences(calibration, identity, needs)
    return Order(
        source=model,
        recipe=recipe,
        name=name,
        identity=identity,
        architecture=architecture,
        selection=selection,
        method=method,
        needs=needs,
        calibration=calibration,
        calibration_digest=None if calibration is None else file_digest(calibration / layout.CALIBRATION),
        rows=rows,
        held_out=held_out,
        input_scales=_input_scales(calibration, recipe, architecture, selection),
        names=names,
        weights=weights,
        others=() if recipe.scheme == "base" else _others(structure, architecture),
    )


def _others(structure: Any, architecture: Architecture) -> tuple[tuple[str, str], ...]:
    """Modules that compute with a matrix, or a stack of them, of another kind than a linear layer: convolutions."""
    known = {layer.name for layer in architecture.linears} | set(architecture.routers)
    found = []
    for name, module in structure.named_modules():
        weight = getattr(module, "weight", None)
        kind = type(module).__name__
        if getattr(weight, "ndim", 0) > 1 and name not in known and "Embedding" not in kind:
            found.append((name, kind))
    return tuple(found)


def with_dynamic_inputs(order: Order, layers: Sequence[str]) -> Order:
    """The order as it was carried out: the inputs of `layers` have a scale for each token."""
    schemes = dict(order.selection.schemes)
    for name in layers:
        schemes[name] = schemes[name].dynamic()
    return replace(order, selection=replace(order.selection, schemes=schemes))


def _sequences(
    calibration: Path | None, identity: ModelIdentity, needs: Needs
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Token sequences to learn from and to measure with; checks that they were made for this model."""
    if calibration is None:
        return (), ()
    _check_made_for(calibration, identity)
    if not (calibration / layout.SEQUENCES).is_file():
        if needs.sequences:
            raise StoreError(f"{calibration / layout.SEQUENCES}: missing; run `qtool calibrate` again")
        return (), ()
    rows, held_out = read_sequences(calibration), read_sequences(calibration, held_out=True)
    return (rows if needs.sequences else ()), (held_out if needs.sequences else held_out[:_MEASURED_ROWS])


def measuring_rows(model: Path, calibration: Path) -> tuple[tuple[int, ...], ...]:
    """Token sequences that no method learns from, of a calibration that was made for `model`."""
    _check_made_for(calibration, identify(model))
    return read_sequences(calibration, held_out=True) or read_sequences(calibration)[-_MEASURED_ROWS:]


def _check_made_for(calibration: Path, identity: ModelIdentity) -> None:
    made_for = read_calibration(calibration).model
    for what in ("weights_digest", "tokenizer_digest"):
        if getattr(made_for, what) != getattr(identity, what):
            part = what.removesuffix("_digest")
            raise MismatchError(
                f"{calibration}: was calibrated on {made_for.name} whose {part} differ from those of {identity.name}; "
                "run `qtool calibrate` on this model"
            )


def _input_scales(
    calibration: Path | None, recipe: Recipe, architecture: Architecture, selection: Selection
) -> dict[str, float]:
    """Scale of each statically quantized layer's input: the grid spans twice the larger end of its range."""
    if calibration is None or recipe.activations != "static":
        return {}
    assert recipe.observer is not None  # completed() has filled it in
    ranges = read_ranges(calibration, recipe.observer)
    reach = {layer: max(abs(seen.low), abs(seen.high)) for layer, seen in ranges.items()}
    missing = sorted(layer for layer in selection.schemes if layer not in reach)
    if missing:
        raise MismatchError(f"{calibration}: has no range for {len(missing)} layers, first {missing[0]}")
    steps = 448.0 if SCHEMES[recipe.scheme].kind == "float8" else 127.5
    scales = {}
    for layer in architecture.linears:
        if layer.name in selection.schemes:
            together = layer.fused_group or (layer.name,)  # servers keep one input scale for merged layers
            scales[layer.name] = max(max(reach[name] for name in together) / steps, 1e-12)
    return scales
