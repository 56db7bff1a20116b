"""Checkpoints made elsewhere: taken in whole, or refused with a reason."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import make_tiny_llama

from qtool.errors import MismatchError, ModelError
from qtool.progress import Silent
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.quantize.output.importing import import_variant
from qtool.quantize.output.readings import load_with_transformers
from qtool.records.variant import Recipe, Variant

Make = Callable[..., Variant]
IDS = torch.arange(3, 40)[None]


def taken_in(folder: Path, output: Path, base: Path | None = None) -> Variant:
    return import_variant(folder, output, name="taken", base=base, progress=Silent())


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("w4a16", "rtn", group_size=32),
        Recipe("w4a16", "rtn", group_size=64, format="gptq"),
        Recipe("w8a16", "rtn", format="gptq"),
        Recipe("w8a8", "rtn"),
        Recipe("base", "baseline"),
    ],
    ids=lambda recipe: f"{recipe.scheme}-{recipe.format}",
)
def test_what_qtool_wrote_comes_back(make: Make, tmp_path: Path, llama: Path, recipe: Recipe) -> None:
    written = make(recipe)
    variant = taken_in(tmp_path / "variant", tmp_path / "in", llama)
    assert (variant.recipe.scheme, variant.recipe.group_size) == (written.recipe.scheme, written.recipe.group_size)
    assert variant.weights_digest == written.weights_digest
    assert variant.base.weights_digest == written.base.weights_digest
    assert [row.layer for row in variant.layers] == [row.layer for row in written.layers]
    logits = [StreamedModel(tmp_path / name).logits([IDS])[0] for name in ("variant", "in")]
    assert torch.equal(*logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unquantized_checkpoints_are_variants_too(tmp_path: Path, dtype: torch.dtype) -> None:
    variant = taken_in(make_tiny_llama(tmp_path / "model", dtype=dtype), tmp_path / "in")
    assert variant.recipe.scheme == "base"
    assert variant.base.dtype == str(dtype).removeprefix("torch.")


def to_awq(folder: Path) -> None:
    """Rewrites a GPTQ v1 checkpoint as AWQ: the same codes, packed along the rows in AWQ's order."""
    path = next(folder.glob("model*.safetensors"))
    for path in folder.glob("model*.safetensors"):
        tensors = load_file(path)
        for name in [name for name in tensors if name.endswith(".qweight")]:
            layer = name.removesuffix(".qweight")
            tensors.pop(f"{layer}.g_idx")
            zeros = tensors[f"{layer}.qzeros"]
            rows = tensors[name].shape[1]
            codes = (tensors[name].t().contiguous().view(torch.uint8)[..., None] >> torch.tensor([0, 4])) & 15
            codes = codes.flatten(1).t()  # [columns, rows]
            middle = torch.full((zeros.shape[0], rows), 8, dtype=torch.int64)
            tensors[name], tensors[f"{layer}.qzeros"] = (pack_awq(values.long()) for values in (codes, middle))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    old = config["quantization_config"]
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": old["group_size"],
        "zero_point": True,
        "version": "gemm",
    }
    (folder / "config.json").write_text(json.dumps(config))


def pack_awq(values: torch.Tensor) -> torch.Tensor:
    words = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int64)
    for nibble, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        words |= values[:, column::8] << (4 * nibble)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def test_awq_checkpoint_means_the_same_numbers(make: Make, tmp_path: Path) -> None:
    make(Recipe("w4a16", "rtn", group_size=32, format="gptq"))
    expected = StreamedModel(tmp_path / "variant").logits([IDS])[0]
    to_awq(tmp_path / "variant")
    variant = taken_in(tmp_path / "variant", tmp_path / "in")
    assert variant.recipe.options == (("packing", "awq"),)
    assert torch.equal(StreamedModel(tmp_path / "in").logits([IDS])[0], expected)


def test_gptq_v2_differs_from_v1_only_in_its_zero_points(make: Make, tmp_path: Path) -> None:
    make(Recipe("w4a16", "rtn", group_size=32, format="gptq"))
    folder = tmp_path / "variant"
    expected = StreamedModel(folder).logits([IDS])[0]
    for path in folder.glob("model*.safetensors"):
        tensors = load_file(path)
        for name in tensors:
            if name.endswith(".qzeros"):
                assert (tensors[name] == 0x77777777).all()
                tensors[name] = torch.full_like(tensors[name], 0x88888888 - 2**32)
        save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (folder / "config.json").write_text(json.dumps(config))
    taken_in(folder, tmp_path / "in")
    assert torch.equal(StreamedModel(tmp_path / "in").logits([IDS])[0], expected)


def test_unknown_quant_method_is_refused(make: Make, tmp_path: Path) -> None:
    make(Recipe("w8a8", "rtn"))
    path = tmp_path / "variant" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["quant_method"] = "modelopt"
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="quantized by 'modelopt'; qtool reads"):
        taken_in(tmp_path / "variant", tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_codes_without_a_config_are_refused(make: Make, tmp_path: Path) -> None:
    make(Recipe("w8a8", "rtn"))
    path = tmp_path / "variant" / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"is stored as int8: codes, and config.* has no quantization_config"):
        taken_in(tmp_path / "variant", tmp_path / "in")


@pytest.mark.parametrize(
    ("change", "message"), [("drop", "1 tensors are missing"), ("add", "1 tensors are unexpected")]
)
def test_missing_and_unexpected_tensors_are_refused(tmp_path: Path, change: str, message: str) -> None:
    folder = make_tiny_llama(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    if change == "drop":
        del tensors["model.layers.0.mlp.up_proj.weight"]
    else:
        tensors["model.layers.0.mlp.up_proj.bias"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=message):
        taken_in(folder, tmp_path / "in")


def test_another_base_is_refused(make: Make, tmp_path: Path) -> None:
    make(Recipe("w8a8", "rtn"))
    with pytest.raises(MismatchError, match="its layers are not those of"):
        taken_in(tmp_path / "variant", tmp_path / "in", make_tiny_llama(tmp_path / "wide", intermediate=256))


def test_nonfinite_weights_are_refused(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.inf
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    os.chmod(folder / "model.safetensors", 0o644)
    with pytest.raises(ModelError, match="up_proj: 1 of its weights are NaN or infinite"):
        taken_in(folder, tmp_path / "in")


def test_zero_point_of_a_static_input_is_kept(make: Make, tmp_path: Path, calibration: Path) -> None:
    """As llm-compressor writes asymmetric static activations; read by transformers, which knows nothing of qtool."""
    make(Recipe("w8a8", "rtn", activations="static"), calibration=calibration)
    folder = tmp_path / "variant"
    config = json.loads((folder / "config.json").read_text())
    for group in config["quantization_config"]["config_groups"].values():
        group["input_activations"]["symmetric"] = group["input_activations"]["dynamic"]  # down_proj kept its own scales
    (folder / "config.json").write_text(json.dumps(config))
    without = StreamedModel(folder).logits([IDS])[0]
    for path in folder.glob("model*.safetensors"):
        tensors = load_file(path)
        scales = [name for name in tensors if name.endswith(".input_scale")]
        points = {f"{name.removesuffix('scale')}zero_point": torch.tensor([100], dtype=torch.int8) for name in scales}
        save_file(tensors | points, path, metadata={"format": "pt"})
    taken_in(folder, tmp_path / "in")
    ours = StreamedModel(tmp_path / "in").logits([IDS])[0]
    with torch.inference_mode():
        theirs = load_with_transformers(tmp_path / "in")(IDS, use_cache=False).logits
    assert (ours - theirs).abs().max() < 1e-3 * theirs.std()  # the order of float32 sums
    assert (ours - without).abs().max() > 1e-2 * theirs.std(), "the zero point must matter, or this test shows nothing"


def test_gptq_that_leaves_modules_alone_is_read(make: Make, tmp_path: Path, llama: Path) -> None:
    """As GPTQModel writes `dynamic = {"-:pattern": {}}`: the modules it matches are stored as they were."""
    make(Recipe("w4a16", "rtn", group_size=32, format="gptq"))
    folder, base = tmp_path / "variant", load_file(llama / "model.safetensors")
    left = "model.layers.0.mlp.down_proj"
    for path in folder.glob("model*.safetensors"):
        tensors = load_file(path)
        if f"{left}.qweight" in tensors:
            tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{left}.")}
            tensors[f"{left}.weight"] = base[f"{left}.weight"]
        save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    for dynamic, accepted in (({"-:.*down_proj": {}}, True), ({"+:.*down_proj": {"bits": 8}}, False)):
        config["quantization_config"]["dynamic"] = dynamic
        (folder / "config.json").write_text(json.dumps(config))
        if accepted:
            rows = taken_in(folder, tmp_path / "in").layers
            assert [row.layer for row in rows if row.scheme_used == "base"] == [left, "lm_head"]
        else:
            with pytest.raises(ModelError, match="settings per module"):
                taken_in(folder, tmp_path / "other")
