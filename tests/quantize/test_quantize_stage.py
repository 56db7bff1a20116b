"""Variant folders: what is written, what is compared, what is refused, and what a killed run leaves."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import make_tiny_llama

from qtool.errors import MismatchError, NumericError, PlanError, QtoolError, QuantizationError, StoreError, UnknownName
from qtool.formats.stored_format import read_weight, stored_formats
from qtool.formats.stored_weights import dequantize
from qtool.machine.peak_memory import peak_bytes
from qtool.models.checkpoint import open_checkpoint, weights_digest
from qtool.progress import Silent
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.quantize.output.readings import load_with_transformers
from qtool.quantize.request.selection import HEAD_KEPT
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe, Variant
from qtool.store.codec import read_json

Make = Callable[..., Variant]
LAYER = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("w4a16", "rtn", group_size=32),
        Recipe("w4a16", "rtn", group_size=64, symmetric=False),
        Recipe("w8a16", "rtn"),
        Recipe("w8a8", "rtn"),
        Recipe("fp8", "rtn"),
    ],
    ids=lambda recipe: f"{recipe.scheme}-{recipe.symmetric}",
)
def test_variant_loads_in_transformers_and_answers_the_same(make: Make, tmp_path: Path, recipe: Recipe) -> None:
    variant = make(recipe, whole_check=True)
    checked = variant.verification
    assert checked is not None
    assert checked.tensors_bit_identical == checked.tensors_compared > 40 - 14
    assert checked.logits_prompts == 8
    assert checked.logits_max_difference < 1e-3
    assert checked.bytes_on_disk == checked.bytes_expected == variant.bytes
    assert read_json(Variant, tmp_path / "variant" / "variant.json") == variant


def test_greedy_tokens_are_those_transformers_generates(make: Make, tmp_path: Path, llama: Path) -> None:
    make(Recipe("w4a16", "rtn", group_size=32))
    ids = torch.arange(3, 19)[None]
    generated = load_with_transformers(tmp_path / "variant").generate(ids, max_new_tokens=6, do_sample=False)
    ours = StreamedModel(tmp_path / "variant").logits([generated])[0].argmax(-1)
    assert torch.equal(ours[0, 15:-1], generated[0, 16:])


def test_dequantized_weights_are_the_rounded_ones(make: Make, tmp_path: Path, llama: Path) -> None:
    from qtool.quantize.contract import Grid
    from qtool.quantize.rounding.grid import round_to_grid

    make(Recipe("w4a16", "rtn", group_size=32))
    checkpoint = open_checkpoint(tmp_path / "variant")
    formats = stored_formats(checkpoint, StreamedModel(llama).architecture.linears)
    expected = round_to_grid(open_checkpoint(llama).tensor(f"{LAYER}.weight"), Grid("int", 4, 32, True, torch.float32))
    assert torch.equal(dequantize(read_weight(checkpoint, LAYER, formats[LAYER])), dequantize(expected))


def test_ledger_has_a_row_for_every_linear_layer(make: Make) -> None:
    variant = make(Recipe("w4a16", "rtn", group_size=32))
    assert len(variant.layers) == 2 * 7 + 1
    head = next(row for row in variant.layers if row.layer == "lm_head")
    assert (head.scheme_used, head.method_used, head.reason) == ("base", "none", HEAD_KEPT)
    rows = [row for row in variant.layers if row.layer != "lm_head"]
    assert all(row.method_used == "rtn" and 0.02 < row.weight_error < 0.2 for row in rows)
    assert variant.fallbacks == 0
    assert variant.peak_memory_bytes > 0


def test_calibration_adds_the_error_of_each_output(make: Make, calibration: Path) -> None:
    variant = make(Recipe("w4a16", "rtn", group_size=32), calibration=calibration)
    errors = [row.output_error for row in variant.layers if row.layer != "lm_head"]
    assert all(error is not None and 0.01 < error < 0.3 for error in errors)
    assert variant.calibration_digest is not None


def test_static_activations_store_the_calibrated_scale(make: Make, tmp_path: Path, calibration: Path) -> None:
    recipe = Recipe("w8a8", "rtn", activations="static", observer="absmax")
    variant = make(recipe, calibration=calibration, whole_check=True)
    scale = open_checkpoint(tmp_path / "variant").tensor("model.layers.0.self_attn.q_proj.input_scale")
    assert scale.tolist() == pytest.approx([6.0 / 127.5])
    # a range of 6 leaves nothing of what this model's down_proj sees: its input is dynamic, in a group of its own
    reason = next(row.reason for row in variant.layers if row.layer == LAYER)
    assert reason.startswith("input kept dynamic: one scale for all tokens leaves over ")
    config = json.loads((tmp_path / "variant" / "config.json").read_text())["quantization_config"]
    dynamic = {group["input_activations"]["dynamic"]: group["targets"] for group in config["config_groups"].values()}
    assert LAYER in dynamic[True]
    assert "model.layers.0.self_attn.q_proj" in dynamic[False]


def test_everything_a_user_needs_lies_beside_the_weights(make: Make, tmp_path: Path) -> None:
    make(Recipe("w8a16", "rtn"))
    names = {path.name for path in (tmp_path / "variant").iterdir()}
    wanted = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "variant.json"}
    assert wanted <= names
    assert "chat_template.jinja" in names
    assert not any(name.startswith(".") or name.endswith(".partial") for name in names)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "variant").iterdir()}
    assert modes == {0o644}


def test_tied_embeddings_survive(make: Make, tmp_path: Path) -> None:
    tied = make_tiny_llama(tmp_path / "tied", tied=True)
    make(Recipe("w4a16", "rtn", group_size=32), model=tied, whole_check=True)
    assert "lm_head.weight" not in open_checkpoint(tmp_path / "variant").names
    assert json.loads((tmp_path / "variant" / "config.json").read_text())["tie_word_embeddings"] is True


def test_head_is_quantized_when_asked(make: Make, tmp_path: Path) -> None:
    variant = make(Recipe("w8a16", "rtn", skip=()), whole_check=True)
    assert next(row for row in variant.layers if row.layer == "lm_head").scheme_used == "w8a16"
    assert "lm_head.weight_packed" in open_checkpoint(tmp_path / "variant").names


def test_single_layers_may_have_a_scheme_of_their_own(make: Make, tmp_path: Path) -> None:
    recipe = Recipe(
        "w4a16", "rtn", group_size=32, overrides=((LAYER, "w8a16"), ("model.layers.1.mlp.down_proj", "base"))
    )
    variant = make(recipe, whole_check=True)
    used = {row.layer: row.scheme_used for row in variant.layers}
    assert (used[LAYER], used["model.layers.1.mlp.down_proj"]) == ("w8a16", "base")
    assert used["model.layers.0.self_attn.q_proj"] == "w4a16"


def test_baseline_is_the_base_bit_for_bit(make: Make, tmp_path: Path, llama: Path) -> None:
    variant = make(Recipe("base", "baseline"))
    assert variant.weights_digest == weights_digest(llama) == variant.base.weights_digest
    assert variant.bytes == variant.base.bytes
    assert {row.method_used for row in variant.layers} == {"none"}


def test_baseline_links_rather_than_copies(tmp_path: Path, make: Make) -> None:
    model = make_tiny_llama(tmp_path / "model")
    weights = model / "model.safetensors"
    weights.chmod(0o644)
    make(Recipe("base", "baseline"), model=model)
    assert (tmp_path / "variant" / "model.safetensors").stat().st_ino == weights.stat().st_ino
    weights.chmod(0o600)
    make(Recipe("base", "baseline"), model=model, name="other")
    assert stat.S_IMODE(weights.stat().st_mode) == 0o600


def test_group_that_does_not_divide_lists_every_layer(tmp_path: Path, make: Make) -> None:
    model = make_tiny_llama(tmp_path / "odd", intermediate=176)
    with pytest.raises(QuantizationError, match=r"176 columns are no multiple of group_size=32; use -1") as caught:
        make(Recipe("w4a16", "rtn", group_size=32), model=model)
    assert all(f"model.layers.{block}.mlp.down_proj" in str(caught.value) for block in (0, 1))
    assert not (tmp_path / "variant").exists()


@pytest.mark.parametrize(
    ("recipe", "error", "message"),
    [
        (Recipe("w4a16", "rtn", group_size=48), PlanError, "group_size: 48 does not go with w4a16"),
        (Recipe("w8a8", "rtn", format="gptq"), PlanError, "format: 'gptq' cannot hold w8a8"),
        (Recipe("w4a16", "rtn", format="gptq", symmetric=False), PlanError, "symmetric: false is not safe"),
        (Recipe("w4a16", "rtn", activations="dynamic"), PlanError, "activations: 'dynamic' does not go"),
        (Recipe("w4a16", "rtn", observer="absmax"), PlanError, "only static activations"),
        (Recipe("w4a16", "rtnn"), PlanError, "did you mean rtn"),
        (Recipe("w4a16", "rtn", options=(("clip", "maybe"),)), PlanError, "options.clip: 'maybe' is not one of"),
        (Recipe("w4a16", "rtn", options=(("clap", "mse"),)), PlanError, "unknown option of 'rtn'; known: clip"),
        (Recipe("w4a16", "rtn", skip=("lm_haed",)), UnknownName, "did you mean"),
        (Recipe("w4a16", "rtn", skip=("*",)), QuantizationError, "nothing is left to quantize"),
        (Recipe("w4a16", "rtn", skip=("q_proj",)), QuantizationError, "servers merge these"),
        (Recipe("w8a8", "rtn", activations="static"), PlanError, "need calibrated ranges"),
    ],
)
def test_impossible_recipes_are_refused(
    make: Make, tmp_path: Path, recipe: Recipe, error: type[QtoolError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(recipe)
    assert list(tmp_path.iterdir()) == []


def test_head_that_is_the_embedding_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="shares its weight with the embedding"):
        make(Recipe("w8a16", "rtn", skip=()), model=make_tiny_llama(tmp_path / "tied", tied=True))


def test_quantized_model_is_no_base(make: Make, tmp_path: Path) -> None:
    make(Recipe("w8a16", "rtn"), name="first")
    with pytest.raises(QuantizationError, match="is quantized already"):
        make(Recipe("w4a16", "rtn", group_size=32), model=tmp_path / "first", name="second")


def test_calibration_of_another_model_is_refused(make: Make, tmp_path: Path, calibration: Path) -> None:
    other = make_tiny_llama(tmp_path / "other", seed=1)
    with pytest.raises(MismatchError, match="whose weights differ"):
        make(Recipe("w8a8", "rtn", activations="static"), model=other, calibration=calibration)


def test_nonfinite_weights_are_named_and_counted(make: Make, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make_tiny_llama(tmp_path / "broken")
    tensors = load_file(model / "model.safetensors")
    tensors[f"{LAYER}.weight"][0, :3] = torch.nan
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NumericError, match=rf"{LAYER}: 3 of its weights are NaN"):
        make(Recipe("w8a16", "rtn"), model=model)
    assert not (tmp_path / "variant").exists()
    assert not (tmp_path / "variant.partial").exists()


def test_existing_folder_is_not_overwritten(make: Make) -> None:
    make(Recipe("w8a16", "rtn"))
    with pytest.raises(StoreError, match="already exists"):
        make(Recipe("w8a16", "rtn"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder_is_one_line(llama: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="permission denied"):
        quantize(llama, Recipe("w8a16", "rtn"), tmp_path / "v", name="v", calibration=None, progress=Silent())


def test_full_disk_is_one_line(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="the disk is full; free some space and run the same command again"):
        make(Recipe("w8a16", "rtn"))
    assert not (tmp_path / "variant").exists()


def test_shard_damaged_on_the_way_to_disk_is_found(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtool.quantize.blocks import finished_parts

    honest = finished_parts.write_tensors

    def damaged(path: Path, tensors: dict[str, torch.Tensor]) -> None:
        honest(path, tensors)
        if path.name.startswith("part-00001"):
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(bytes(data))

    monkeypatch.setattr(finished_parts, "write_tensors", damaged)
    with pytest.raises(QuantizationError, match="is not what was in memory"):
        make(Recipe("w8a16", "rtn"))
    assert not (tmp_path / "variant").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU does")
def test_scheme_this_machine_only_emulates_is_made_and_said(make: Make) -> None:
    notes: list[str] = []

    class Noting(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    make(Recipe("fp8", "rtn"), progress=Noting())
    assert "runs emulated" in " ".join(notes)


def test_peak_memory_is_measured() -> None:
    assert peak_bytes() > 1 << 20


def test_model_in_half_precision_passes_the_whole_check(make: Make, tmp_path: Path) -> None:
    """Compared in the type it is stored in: float32 against bfloat16 would differ by more than a wrong reading may."""
    model = make_tiny_llama(tmp_path / "half", layers=4, dtype=torch.bfloat16)
    verification = make(Recipe("w4a16", "rtn", group_size=32), model=model, whole_check=True).verification
    assert verification is not None
    assert verification.logits_max_difference < 0.01  # same products in the same type; other sums at most
