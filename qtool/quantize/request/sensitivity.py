"""How much each layer matters: KL divergence from the base when it alone is rounded, and when it alone is kept.

Layers that servers merge (q, k and v; gate and up) are one unit: they must share a scheme anyway. Rounding is to
nearest, so the scores say what the layer can bear, not what a cleverer method would make of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtool import __version__
from qtool.errors import PlanError
from qtool.formats.schemes import LayerScheme
from qtool.formats.stored_weights import dequantize
from qtool.formats.tensor_names import weights_as_used
from qtool.models.architecture import Architecture, LinearLayer, describe_model
from qtool.models.completeness import load_base
from qtool.models.identity import identify
from qtool.models.unfolded import unfold
from qtool.progress import Progress
from qtool.quantize.output.layouts import grid_of, layer_bytes, scale_dtype, stored_format
from qtool.quantize.request.recipe import completed, recipe_problems
from qtool.quantize.request.selection import Selection, select
from qtool.quantize.rounding.activations import quantize_inputs
from qtool.quantize.rounding.grid import round_to_grid
from qtool.records.sensitivity import Sensitivity, UnitSensitivity
from qtool.records.variant import Recipe
from qtool.store.digest import record_digest
from qtool.store.trial_log import TrialLog

_SEQUENCES = 8
_TOKENS = 128


def measure(
    model: Path,
    recipe: Recipe,
    sequences: Sequence[Sequence[int]],
    *,
    progress: Progress,
    kept: Path | None = None,
) -> Sensitivity:
    """The sensitivity of every unit that `recipe` quantizes, on up to 8 x 128 tokens of `sequences`.

    Each trial is written to the file `kept` once it is done, so that a killed call goes on where it was. Raises
    PlanError for a recipe that cannot be meant or when there are no tokens. Holds the whole model in memory.
    """
    recipe = completed(recipe)
    problems = list(recipe_problems(recipe))
    if recipe.activations == "static":
        problems.append("activations: sensitivity rounds activations per token; use dynamic")
    if not sequences:
        problems.append("calibration: holds no token sequences to measure with")
    if problems:
        raise PlanError([f"sensitivity: {problem}" for problem in problems])
    loaded = unfold(load_base(model))
    architecture = describe_model(loaded)
    selection = select(architecture, recipe)
    bench = _Bench(loaded, selection, recipe, sequences)
    units = list(_units(architecture, selection))
    identity, checkpoint = identify(model), weights_as_used(model)
    trials = TrialLog(kept, record_digest({"model": identity.weights_digest, "recipe": recipe, "rows": bench.rows}))
    with progress.track("measuring layers", 2 * len(units) + 1, "trials") as advance:
        everything = [layer for unit in units for layer in unit]
        others = [[layer for layer in everything if layer not in unit] for unit in units]
        found = []
        for rounded in (everything, *units, *others):
            found.append(trials.once([layer.name for layer in rounded], partial(bench.kl, rounded)))
            advance(1)
    kl_all, alone, without = found[0], found[1 : len(units) + 1], found[len(units) + 1 :]
    return Sensitivity(
        format_version=1,
        model=identity,
        recipe=recipe,
        kl_all=kl_all,
        tokens=bench.tokens,
        units=tuple(
            UnitSensitivity(
                layers=tuple(layer.name for layer in unit),
                kl_alone=kl_alone,
                kl_without=kl_without,
                base_bytes=sum(checkpoint.tensor_bytes(layer.weight) for layer in unit),
                bytes=sum(
                    stored_bytes(layer, selection.schemes[layer.name], recipe, checkpoint.dtype(layer.weight))
                    for layer in unit
                ),
            )
            for unit, kl_alone, kl_without in zip(units, alone, without, strict=True)
        ),
        qtool_version=__version__,
    )


def stored_bytes(layer: LinearLayer, scheme: LayerScheme, recipe: Recipe, dtype: torch.dtype) -> int:
    """Size of the stored tensors of one layer under `scheme`."""
    size = scale_dtype(recipe.format, dtype).itemsize
    return layer_bytes(layer.rows, layer.columns, stored_format(scheme, recipe.format), size)


def sensitivity_text(found: Sensitivity) -> str:
    """A table, the most sensitive unit first."""
    width = max(len(", ".join(unit.layers)) for unit in found.units)
    lines = [
        f"{found.model.name} under {found.recipe.scheme}: KL {found.kl_all:.3g} nats a token with every layer rounded "
        f"({found.tokens} tokens)",
        f"{'layers':<{width}} {'KL alone':>10} {'KL without':>10} {'bytes saved':>12}",
    ]
    for unit in sorted(found.units, key=lambda unit: -unit.kl_alone):
        saved = unit.base_bytes - unit.bytes
        lines.append(f"{', '.join(unit.layers):<{width}} {unit.kl_alone:>10.3g} {unit.kl_without:>10.3g} {saved:>12,}")
    return "\n".join(lines)


class _Bench:
    """The model in memory, and its answers on the measuring tokens when some layers are rounded."""

    def __init__(self, model: Any, selection: Selection, recipe: Recipe, sequences: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._selection = selection
        self._recipe = recipe
        self.rows = tuple(tuple(map(int, row[:_TOKENS])) for row in sequences[:_SEQUENCES])
        self._batches = [torch.tensor([row]) for row in self.rows]
        self.tokens = sum(map(len, self.rows))
        self._base = self._log_probabilities()

    def kl(self, layers: Sequence[LinearLayer]) -> float:
        """Mean KL (nats a token) from the base when `layers` are rounded."""
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(self._rounded(layer))
            found = self._log_probabilities()
        total = sum(
            float((base.exp() * (base - other)).sum().double()) for base, other in zip(self._base, found, strict=True)
        )
        return max(0.0, total / self.tokens)

    @torch.inference_mode()
    def _log_probabilities(self) -> list[Tensor]:
        return [self._model(ids, use_cache=False).logits[0].float().log_softmax(-1) for ids in self._batches]

    @contextmanager
    def _rounded(self, layer: LinearLayer) -> Iterator[None]:
        module: Any = self._model.get_submodule(layer.name)
        scheme, held = self._selection.schemes[layer.name], module.weight
        grid = grid_of(scheme, scale_dtype(self._recipe.format, held.dtype))
        rounded = dequantize(round_to_grid(held.detach().float(), grid)).to(held)
        module.weight = nn.Parameter(rounded, requires_grad=False)
        handle = None
        if scheme.activations != "none":
            handle = quantize_inputs(module, float8=grid.kind == "float8", scale=None)
        try:
            yield
        finally:
            module.weight = held
            if handle is not None:
                handle.remove()


def _units(architecture: Architecture, selection: Selection) -> Iterator[list[LinearLayer]]:
    groups: dict[str, list[LinearLayer]] = {}
    for layer in architecture.linears:
        if layer.name in selection.schemes:
            groups.setdefault(layer.experts or (*layer.fused_group, layer.name)[0], []).append(layer)
    yield from groups.values()
