"""Mixtures of experts and GPT-2: every matrix quantized as a linear layer, and what the ledger says of each."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_calibration import make_calibration
from tiny_model import make_tiny_gpt2, make_tiny_mixtral, make_tiny_qwen_moe

from qtool.engine.layers.weights import load_model
from qtool.errors import QuantizationError
from qtool.models.checkpoint import open_checkpoint
from qtool.progress import Silent
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.quantize.output.importing import import_variant
from qtool.quantize.request.mixed import choose_overrides
from qtool.quantize.request.sensitivity import measure
from qtool.records.variant import Recipe, Variant

Make = Callable[..., Variant]


def assert_the_engine_answers_alike(folder: Path) -> None:
    ids = torch.arange(3, 43)[None]
    loaded = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        found = loaded.model(ids).logits[0]
    expected = StreamedModel(folder).logits([ids])[0][0]
    # products round inputs to 16 bits, torch's own also scales and sums: 2^-9 each, a dozen products one after another,
    # and the largest of ten thousand differences is four times the usual one
    assert (found - expected).abs().max() < 4 * math.sqrt(12) * 2**-9 * expected.std()


@pytest.mark.parametrize("joined", [True, False])
def test_each_expert_is_a_layer_and_transformers_reads_them(make: Make, joined: bool, tmp_path: Path) -> None:
    model = make_tiny_mixtral(tmp_path / "model", joined=joined)
    variant = make(Recipe("w4a16", "rtn", group_size=32), model=model, whole_check=True)
    rows = [row for row in variant.layers if ".experts." in row.layer]
    assert len(rows) == 2 * 4 * 3
    assert {(row.method_used, row.scheme_used) for row in rows} == {("rtn", "w4a16")}
    assert variant.fallbacks == 0
    names = open_checkpoint(tmp_path / "variant").names
    assert "model.layers.1.block_sparse_moe.experts.3.w2.weight_packed" in names
    assert "model.layers.1.block_sparse_moe.gate.weight" in names
    config = json.loads((tmp_path / "variant" / "config.json").read_text())["quantization_config"]
    assert {"model.layers.0.mlp.gate", "model.layers.0.block_sparse_moe.gate"} <= set(config["ignore"])
    assert variant.verification is not None
    assert not any("not loaded whole" in line for line in variant.verification.lint)
    assert_the_engine_answers_alike(tmp_path / "variant")


def test_gptq_learns_from_the_tokens_routed_to_each_expert(make: Make, tmp_path: Path) -> None:
    model = make_tiny_qwen_moe(tmp_path / "model")
    calibration = make_calibration(tmp_path / "calibration", model, rows=40)
    variant = make(Recipe("w4a16", "gptq", group_size=32), model=model, calibration=calibration, whole_check=True)
    seen = {row.layer: row.tokens_seen for row in variant.layers}
    everything = seen["model.layers.0.self_attn.q_proj"]
    routed = [seen[f"model.layers.0.mlp.experts.{index}.down_proj"] for index in range(4)]
    assert sum(routed) == 2 * everything  # two experts a token, and no padding among them
    assert seen["model.layers.0.mlp.shared_expert.up_proj"] == everything
    gates = [row for row in variant.layers if row.layer.endswith("shared_expert_gate")]
    assert {row.method_used for row in gates} == {"none"}
    assert all(row.output_error is not None for row in variant.layers if ".experts." in row.layer)


def test_expert_that_saw_too_few_tokens_is_rounded_and_the_ledger_says_so(make: Make, tmp_path: Path) -> None:
    model = make_tiny_qwen_moe(tmp_path / "model", experts=64)
    calibration = make_calibration(tmp_path / "calibration", model, rows=4, tokens=12)
    variant = make(Recipe("w4a16", "gptq", group_size=32), model=model, calibration=calibration)
    rows = [row for row in variant.layers if ".experts." in row.layer]
    unseen = [row for row in rows if row.tokens_seen == 0]
    few = [row for row in rows if row.tokens_seen and row.method_used == "rtn"]
    assert unseen
    assert few
    assert all(row.method_used == "rtn" and row.reason == "no calibration token reached it" for row in unseen)
    assert all(row.reason.startswith(f"{row.tokens_seen} tokens for {row.columns} columns: ") for row in few)
    assert variant.fallbacks >= len(unseen) + len(few)


def test_8_bit_inputs_of_experts_are_said_not_to_load(make: Make, tmp_path: Path) -> None:
    variant = make(Recipe("w8a8", "rtn"), model=make_tiny_mixtral(tmp_path / "model", joined=False), whole_check=None)
    assert variant.verification is not None
    assert any("transformers refuses int8" in line for line in variant.verification.lint)
    assert_the_engine_answers_within_rounding(tmp_path / "variant")


def assert_the_engine_answers_within_rounding(folder: Path) -> None:
    ids = torch.arange(3, 43)[None]
    loaded = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        found = loaded.model(ids).logits[0]
    expected = StreamedModel(folder).logits([ids])[0][0]
    # an input on the border of two of 255 steps may fall to either side
    assert (found - expected).abs().max() < 0.1 * expected.std()


@pytest.mark.parametrize("scheme", ["w4a16", "w8a16"])
def test_conv1d_is_quantized_as_a_linear_layer(make: Make, scheme: str, tmp_path: Path) -> None:
    model = make_tiny_gpt2(tmp_path / "model")
    variant = make(Recipe(scheme, "rtn", group_size=32), model=model, whole_check=None)
    row = variant.layers[0]
    assert (row.layer, row.rows, row.columns, row.method_used) == ("transformer.h.0.attn.c_attn", 192, 64, "rtn")
    assert open_checkpoint(tmp_path / "variant").shape("transformer.h.0.attn.c_attn.weight_scale") == (192, 2)
    assert variant.verification is not None
    assert any("transformers cannot load them" in line for line in variant.verification.lint)
    assert_the_engine_answers_alike(tmp_path / "variant")


def test_conv1d_kept_and_codes_that_are_called_weight_lie_as_in_the_base(make: Make, tmp_path: Path) -> None:
    model = make_tiny_gpt2(tmp_path / "model")
    make(Recipe("w8a8", "rtn", skip=("lm_head", "*.c_fc")), model=model)
    written, base = open_checkpoint(tmp_path / "variant"), open_checkpoint(model)
    assert torch.equal(
        written.tensor("transformer.h.0.mlp.c_fc.weight"), base.tensor("transformer.h.0.mlp.c_fc.weight")
    )
    assert written.shape("transformer.h.0.attn.c_attn.weight") == base.shape("transformer.h.0.attn.c_attn.weight")
    assert_the_engine_answers_within_rounding(tmp_path / "variant")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("w4a16", "rtn", group_size=32, skip=("lm_head", "*.experts.0.*")), "give all one scheme, or skip all"),
        (Recipe("w8a8", "rtn", activations="static"), "no range is calibrated for a single expert"),
    ],
)
def test_what_experts_cannot_be_is_refused(make: Make, tmp_path: Path, recipe: Recipe, message: str) -> None:
    model = make_tiny_mixtral(tmp_path / "model", joined=False)
    calibration = make_calibration(tmp_path / "calibration", model)
    with pytest.raises(QuantizationError, match=message):
        make(recipe, model=model, calibration=calibration)


def test_all_experts_of_a_block_are_one_unit_of_sensitivity(make: Make, tmp_path: Path) -> None:
    model, recipe = make_tiny_mixtral(tmp_path / "model", joined=True), Recipe("w4a16", "rtn", group_size=32)
    found = measure(model, recipe, [tuple(range(3, 40))], progress=Silent())
    units = [unit for unit in found.units if ".experts." in unit.layers[0]]
    assert [len(unit.layers) for unit in units] == [12, 12]
    assert choose_overrides(model, found, "1.0 x base")


def test_variant_with_experts_can_be_imported(make: Make, tmp_path: Path) -> None:
    model = make_tiny_mixtral(tmp_path / "model", joined=False)
    made = make(Recipe("w4a16", "rtn", group_size=32), model=model)
    taken = import_variant(tmp_path / "variant", tmp_path / "taken", name="taken", base=model, progress=Silent())
    assert [row.layer for row in taken.layers] == [row.layer for row in made.layers]
    assert taken.bytes == made.bytes
