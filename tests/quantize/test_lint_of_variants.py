"""`qtool lint` on variants as qtool writes them: the headers tell what the recipe said."""

from collections.abc import Callable
from pathlib import Path

import pytest

import qtool
from qtool.formats.targets.layers import stored_model
from qtool.records.variant import Recipe, Variant


@pytest.mark.parametrize("layout", ["compressed-tensors", "gptq"])
def test_layers_of_a_written_variant(make: Callable[..., Variant], tmp_path: Path, layout: str) -> None:
    variant = make(Recipe("w4a16", "rtn", group_size=32, format=layout))
    layers = {layer.name: layer for layer in stored_model(tmp_path / "variant").quantized}
    rows = {row.layer: row for row in variant.layers if row.scheme_used == "w4a16"}
    assert set(layers) == set(rows)
    assert {(layer.numbers, layer.bits, layer.group_size) for layer in layers.values()} == {("int", 4, 32)}
    assert {name: (layer.rows, layer.columns) for name, layer in layers.items()} == {
        name: (row.rows, row.columns) for name, row in rows.items()
    }
    found = qtool.lint(tmp_path / "variant", target="vllm", gpu="h100")
    assert [finding.rule for finding in found.findings] == ["marlin-shape"]  # the tiny model is 64 wide
    assert not found.stops
