"""Activations that overflow are named, layer and count, and nothing is left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_calibration import make_calibration
from tiny_model import make_tiny_llama

from qtool.errors import NumericError
from qtool.records.variant import Recipe, Variant

Make = Callable[..., Variant]


@pytest.fixture
def overflowing(tmp_path: Path) -> Path:
    """A model whose weights are finite and whose second block multiplies two of 1e25 or so: infinity in float32."""
    model = make_tiny_llama(tmp_path / "overflowing")
    weights = load_file(model / "model.safetensors")
    for name in ("gate_proj", "up_proj"):
        weights[f"model.layers.1.mlp.{name}.weight"] *= 1e25
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    return model


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("w4a16", "gptq", 32),
        Recipe("w4a16", "awq", 32),
        Recipe("w8a8", "smoothquant"),
        Recipe("w4a16", "rtn", 32),
    ],
    ids=lambda recipe: recipe.method,
)
def test_overflow_is_named_and_nothing_stays(make: Make, overflowing: Path, tmp_path: Path, recipe: Recipe) -> None:
    calibration = make_calibration(tmp_path / "data", overflowing)
    where = r"^model\.layers\.1\.mlp\.down_proj: \d+ of its input values are NaN or infinite on calibration tokens$"
    with pytest.raises(NumericError, match=where):
        make(recipe, model=overflowing, calibration=calibration)
    assert not (tmp_path / "variant").exists()
