"""Every method of the catalog, and whatever is added to it: documented, strict, repeatable, nothing lost in silence."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from qtool import catalog
from qtool.errors import MissingPackage, PlanError
from qtool.formats.schemes import SCHEMES
from qtool.models.checkpoint import open_checkpoint
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.quantize.request.recipe import METHODS, completed, recipe_problems
from qtool.records.variant import Recipe, Variant

Make = Callable[..., Variant]
NAMES = catalog.names(METHODS)
KEPT = "model.layers.1.mlp.down_proj"
HEADINGS = ("What it does:", "When to use it:", "What it costs:", "When it fails:")


def recipes() -> list[Recipe]:
    """Each method with each of its schemes, one layer left out."""
    found = []
    for name in NAMES:
        for scheme in catalog.load(METHODS, name, kind="method").NEEDS.schemes:
            group_size = 32 if 32 in SCHEMES[scheme].groups else -1
            layout = SCHEMES[scheme].formats[0]
            formats = catalog.load(METHODS, name, kind="method").NEEDS.formats
            if formats and layout not in formats:
                layout = formats[0]
            kept = {"base": (), "gptq": ("lm_head",)}.get(scheme if scheme == "base" else layout, ("lm_head", KEPT))
            found.append(completed(Recipe(scheme, name, group_size, skip=kept, format=layout)))
    return found


def installed(method: str) -> bool:
    package = catalog.load(METHODS, method, kind="method").NEEDS.package
    needed = {"bitsandbytes": ("bitsandbytes", "accelerate"), "gptqmodel": ("gptqmodel",)}
    return package is None or all(importlib.util.find_spec(name) for name in needed[package[0]])


@pytest.mark.parametrize("name", NAMES)
def test_documentation_has_the_four_headings(name: str) -> None:
    text = catalog.docstring(METHODS, name, kind="method")
    positions = [text.find(f"\n{heading}") for heading in HEADINGS]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize("name", NAMES)
def test_contract_is_provided(name: str) -> None:
    method = catalog.load(METHODS, name, kind="method")
    assert method.NEEDS.scope in ("block", "folder")
    assert set(method.NEEDS.schemes) <= set(SCHEMES)
    assert callable(method.quantize)
    assert all(text for text in method.NEEDS.options.values())


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: f"{recipe.method}-{recipe.scheme}")
def test_method_keeps_its_promises(make: Make, tmp_path: Path, llama: Path, calibration: Path, recipe: Recipe) -> None:
    assert recipe_problems(recipe) == ()
    if not installed(recipe.method):
        with pytest.raises(MissingPackage, match="install it with"):
            make(recipe, calibration=calibration)
        return
    first = make(recipe, calibration=calibration, name="first")
    again = make(recipe, calibration=calibration, name="again")
    assert first.weights_digest == again.weights_digest, "same inputs, same bytes"
    written, base = open_checkpoint(tmp_path / "first"), open_checkpoint(llama)
    kept = {f"{name}.weight" for name in recipe.skip}
    for name in {"model.embed_tokens.weight", "lm_head.weight"} | kept:
        assert torch.equal(written.tensor(name), base.tensor(name)), f"{name} was to stay as it is"
    assert [row.layer for row in first.layers] == [row.layer for row in again.layers]
    for row in first.layers:
        expected = "base" if recipe.scheme == "base" or f"{row.layer}.weight" in kept else recipe.scheme
        assert row.scheme_used == expected
        assert (row.weight_error > 0) == (row.scheme_used != "base")
        assert row.method_used in ("none", recipe.method) or row.reason, "another method needs a reason"
    assert first.fallbacks == sum(row.method_used not in ("none", recipe.method) for row in first.layers)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("w4a16", "gptq", 32),
        Recipe("w4a16", "gptq", 64, symmetric=False),
        Recipe("w4a16", "awq", 32),
        Recipe("w4a16", "gptq_awq", -1),
        Recipe("w8a8", "smoothquant"),
        Recipe("w8a8", "smoothquant", activations="static"),
    ],
    ids=lambda recipe: f"{recipe.method}-{recipe.group_size}-{recipe.activations}",
)
def test_result_loads_whole_in_transformers(make: Make, calibration: Path, recipe: Recipe) -> None:
    variant = make(recipe, calibration=calibration, whole_check=True)
    assert variant.verification is not None
    assert variant.verification.logits_max_difference < 1e-3
    assert all(row.tokens_seen > 300 for row in variant.layers if row.method_used != "none")


@pytest.mark.parametrize("method", ["gptq", "awq", "smoothquant", "gptq_awq"])
def test_method_that_learns_refuses_to_guess(make: Make, method: str) -> None:
    scheme = "w8a8" if method == "smoothquant" else "w4a16"
    with pytest.raises(PlanError, match="learns from data; give --calibration"):
        make(Recipe(scheme, method))  # type: ignore[arg-type]


def test_moving_scale_leaves_the_unquantized_block_as_it_is(
    make: Make, tmp_path: Path, llama: Path, calibration: Path
) -> None:
    """AWQ at 8 bits: the rescaled model, almost unrounded, must answer like the base."""
    make(Recipe("w8a16", "awq", 32), calibration=calibration)
    ids = torch.arange(3, 60)[None]
    base, variant = (StreamedModel(folder).logits([ids])[0] for folder in (llama, tmp_path / "variant"))
    assert float((variant - base).norm() / base.norm()) < 0.05


@pytest.mark.extra
@pytest.mark.skipif(not installed("bitsandbytes"), reason="needs bitsandbytes")
def test_bitsandbytes_refuses_widths_its_kernel_cannot_take(make: Make, tmp_path: Path) -> None:
    from tiny_model import make_tiny_llama

    from qtool.errors import QuantizationError

    odd = make_tiny_llama(tmp_path / "odd", intermediate=96)
    with pytest.raises(QuantizationError, match=r"skip: .*down_proj \(64 x 96\)"):
        make(Recipe("nf4", "bitsandbytes", format="bitsandbytes"), model=odd)
