"""Folders as engines: every stored form runs on its kernel and answers as its numbers do; damage is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from qtool.engine.contract import GenerationRequest, ScoreRequest
from qtool.engine.drive import generate
from qtool.engine.layers.weights import load_model
from qtool.engine.load import open_engine
from qtool.errors import CapacityError, ModelError, UnknownName
from qtool.formats.stored_format import read_weight, stored_formats
from qtool.formats.stored_weights import dequantize
from qtool.kernels.cpu import native_cpu
from qtool.models.architecture import describe
from qtool.models.checkpoint import open_checkpoint
from qtool.models.completeness import load_base
from qtool.progress import Silent
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe
from tests.tiny_model import make_tiny_llama

RECIPES = {
    "w4a16-g32": Recipe("w4a16", "rtn", group_size=32),
    "w4a16-row": Recipe("w4a16", "rtn"),
    "w8a16-row": Recipe("w8a16", "rtn"),
    "w8a16-g32": Recipe("w8a16", "rtn", group_size=32),
    "w8a8": Recipe("w8a8", "rtn", activations="dynamic"),
    "gptq": Recipe("w4a16", "rtn", group_size=32, format="gptq"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("load") / "base", tied=True)


@pytest.fixture(scope="module")
def variants(base: Path) -> dict[str, Path]:
    found = {}
    for name, recipe in RECIPES.items():
        found[name] = base.parent / name
        quantize(base, recipe, found[name], name=name, calibration=None, progress=Silent(), whole_check=False)
    return found


def as_numbers(base: Path, variant: Path) -> Any:
    """The base model with every quantized weight replaced by the numbers its codes stand for."""
    model = load_base(base, dtype=torch.float32)
    checkpoint = open_checkpoint(variant)
    for name, form in stored_formats(checkpoint, describe(variant).linears).items():
        weight = dequantize(read_weight(checkpoint, name, form))
        model.get_submodule(name).weight.data = weight.float()
    return model


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_variant_scores_as_its_numbers_do(name: str, base: Path, variants: dict[str, Path]) -> None:
    engine = open_engine(variants[name], dtype="float32", slots=4)
    assert type(engine).__name__ == "QtoolEngine"
    model = as_numbers(base, variants[name])
    ids = tuple(range(3, 40))
    with torch.inference_mode():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0, :-1].double(), -1)
    wanted = [float(row[token]) for row, token in zip(expected[7:], ids[8:], strict=True)]
    scored = engine.score([ScoreRequest(ids[:8], ids[8:])])[0]
    # bfloat16 or 8-bit inputs: some 2^-8 of each sum a layer; a wrong scale or order would be off by whole nats
    assert max(abs(a - b) for a, b in zip(scored.logprobs, wanted, strict=True)) < 0.35
    assert sum(abs(a - b) for a, b in zip(scored.logprobs, wanted, strict=True)) / len(wanted) < 0.1
    assert generate(engine, [GenerationRequest(ids[:8], 5)])[0].finish == "length"


def test_the_kernels_used_are_the_packed_ones(variants: dict[str, Path]) -> None:
    engine: Any = open_engine(variants["w4a16-g32"])
    labels = {name: label for name, label in engine.kernels}
    assert labels["model.layers.0.mlp.up_proj"].startswith(("int4 packed product", "int4 compiled product"))
    assert "plain product" in labels["lm_head"]


def test_a_base_folder_equals_transformers(base: Path) -> None:
    requests = [GenerationRequest(tuple(range(3, 3 + length)), 6) for length in (2, 11, 30)]
    ours, oracle = (open_engine(base, backend=name, slots=2) for name in ("qtool", "transformers"))
    assert [g.ids for g in generate(ours, requests)] == [g.ids for g in generate(oracle, requests)]


def test_a_folder_without_a_tokenizer_still_opens(base: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        os.link(base / name, tmp_path / name)
    engine = open_engine(tmp_path, slots=1)
    assert generate(engine, [GenerationRequest((3, 4), 2)])[0].finish == "length"


def damaged(source: Path, target: Path, change: Any) -> Path:
    """A copy of `source` whose tensors or config went through `change`."""
    target.mkdir()
    config = json.loads((source / "config.json").read_text())
    checkpoint = open_checkpoint(source)
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.names}
    change(config, tensors)
    (target / "config.json").write_text(json.dumps(config))
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def drop(name: str) -> Any:
    return lambda config, tensors: tensors.pop(name)


def set_scale(value: float) -> Any:
    return lambda config, tensors: tensors["model.layers.0.mlp.up_proj.weight_scale"].fill_(value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (drop("model.layers.1.mlp.up_proj.weight_packed"), "weight_packed"),
        (drop("model.norm.weight"), "model.norm.weight"),
        (lambda config, tensors: tensors.update(extra=torch.ones(2)), "belong to no layer"),
        (set_scale(float("nan")), "NaN"),
        (lambda config, tensors: config["quantization_config"].update(quant_method="modelopt"), "modelopt"),
        (lambda config, tensors: config.update(hidden_size=128), "."),
    ],
)
def test_a_damaged_variant_is_refused(change: Any, word: str, variants: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=word):
        open_engine(damaged(variants["w4a16-g32"], tmp_path / "damaged", change))


def test_a_truncated_shard_is_refused(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    (folder / "config.json").write_text((base / "config.json").read_text())
    (folder / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelError):
        open_engine(folder)


def test_too_large_a_model_is_refused_before_it_is_read(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtool.engine.layers import weights
    from qtool.engine.scheduling import memory

    monkeypatch.setattr(memory, "available_bytes", lambda device: 1 << 20)
    for reader in ("load_base", "empty_model"):
        monkeypatch.setattr(weights, reader, lambda *_, **__: pytest.fail("read although it cannot fit"))
    with pytest.raises(CapacityError, match="are free"):
        open_engine(base)


def test_an_unknown_backend_names_the_known_ones(base: Path) -> None:
    with pytest.raises(UnknownName, match="qtool"):
        open_engine(base, backend="vlm")


@pytest.mark.extra
@pytest.mark.parametrize("scheme", ["nf4", "int8"])
def test_a_bitsandbytes_folder_runs_on_this_engine(scheme: str, base: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    recipe = Recipe(scheme, "bitsandbytes", format="bitsandbytes")  # type: ignore[arg-type]
    quantize(base, recipe, tmp_path / scheme, name=scheme, calibration=None, progress=Silent(), whole_check=False)
    engine: Any = open_engine(tmp_path / scheme, slots=2)
    assert type(engine).__name__ == "QtoolEngine", engine.notes
    ours = scheme == "nf4" and not native_cpu.refusal()
    kernels = {label for name, label in engine.kernels if name.endswith("_proj")}
    assert all(label.startswith("nf4 compiled" if ours else "bitsandbytes") for label in kernels)
    requests = [GenerationRequest((5, 6, 7), 4), GenerationRequest((9,), 4)]
    assert [generation.finish for generation in generate(engine, requests)] == ["length", "length"]


@pytest.mark.extra
@pytest.mark.skipif(bool(native_cpu.refusal()), reason=f"not here: {native_cpu.refusal()}")
@pytest.mark.parametrize("nested", [False, True])
def test_four_bit_layers_of_bitsandbytes_are_multiplied_as_they_stand(nested: bool, base: Path, tmp_path: Path) -> None:
    """Compared with bitsandbytes' own reading of the same folder, its numbers multiplied in float32."""
    functional = pytest.importorskip("bitsandbytes.functional")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=nested,
        bnb_4bit_compute_dtype=torch.float32,
    )
    AutoModelForCausalLM.from_pretrained(base, quantization_config=settings).save_pretrained(tmp_path / "nf4")
    loaded = load_model(tmp_path / "nf4", dtype=torch.float32, device=torch.device("cpu"))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "nf4", dtype=torch.float32)
    compared = 0
    for name, module in theirs.named_modules():
        if type(module).__name__ != "Linear4bit":
            continue
        inputs = torch.randn(3, module.in_features, generator=torch.Generator().manual_seed(compared))
        exact = functional.dequantize_4bit(module.weight.data, module.weight.quant_state).double()
        largest = exact.abs().max(dim=1).values  # a book rounded by 2^-14 of a block's scale, inputs by 2^-16
        bound = 2.0**-13 * largest * inputs.double().abs().sum(dim=1, keepdim=True)
        found = loaded.model.get_submodule(name)(inputs[None])[0].double()
        assert ((found - inputs.double() @ exact.t()).abs() <= bound).all(), name
        compared += 1
    assert compared == 14  # seven layers in each of two blocks
