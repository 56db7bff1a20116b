"""GPTQModel reads what qtool writes in GPTQ format, as the same numbers; and qtool what GPTQModel writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qtool.formats.stored_format import read_weight, stored_formats
from qtool.formats.stored_weights import dequantize
from qtool.models.checkpoint import open_checkpoint
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.records.variant import Recipe, Variant

pytestmark = pytest.mark.extra
pytest.importorskip("gptqmodel")

Make = Callable[..., Variant]
IDS = torch.arange(3, 43)[None]


def read_by_gptqmodel(folder: Path) -> Any:
    """The folder as a user of GPTQModel loads it, with the backend that runs on every processor."""
    from gptqmodel import BACKEND, GPTQModel

    return GPTQModel.load(str(folder), device="cpu", backend=BACKEND.TORCH, dtype=torch.float16).model.eval()


@pytest.mark.parametrize("recipe", [Recipe("w4a16", "gptq", 32), Recipe("w8a16", "rtn", -1)], ids=lambda r: r.scheme)
def test_gptqmodel_reads_our_codes_as_the_numbers_we_meant(
    make: Make, tmp_path: Path, calibration: Path, recipe: Recipe
) -> None:
    from dataclasses import replace

    make(replace(recipe, format="gptq"), calibration=calibration)
    model = read_by_gptqmodel(tmp_path / "variant")
    checkpoint = open_checkpoint(tmp_path / "variant")
    streamed = StreamedModel(tmp_path / "variant")
    formats = stored_formats(checkpoint, streamed.architecture.linears)
    assert len(formats) == 14
    for name, form in formats.items():
        ours = dequantize(read_weight(checkpoint, name, form)).float()
        theirs = model.get_submodule(name).dequantize_weight().t().float()
        # both multiply a whole number by a 16-bit scale; they round the product to half precision
        torch.testing.assert_close(theirs, ours, rtol=2**-10, atol=1e-6)
    with torch.inference_mode():
        logits = model(IDS, use_cache=False).logits.float()
    expected = streamed.logits([IDS])[0]
    assert float((logits - expected).norm() / expected.norm()) < 0.01  # half precision throughout the model


def test_qtool_reads_what_gptqmodel_writes(make: Make, tmp_path: Path, llama: Path, calibration: Path) -> None:
    variant = make(Recipe("w4a16", "gptqmodel", 32, format="gptq"), calibration=calibration)
    rows = [row for row in variant.layers if row.scheme_used == "w4a16"]
    assert len(rows) == 14
    assert all(0 < row.weight_error < 0.2 for row in rows)  # 4 bits in groups of 32: about 0.1
    text = (tmp_path / "variant" / "config.json").read_text() + (tmp_path / "variant" / "variant.json").read_text()
    assert "offload" not in text, "no path of the machine it was made on"
    base, found = (StreamedModel(folder).logits([IDS])[0] for folder in (llama, tmp_path / "variant"))
    assert float((found - base).norm() / base.norm()) < 0.5
