"""`qtool lint`: what each target objects to, from headers alone; unknown names; folders that are no models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import qtool
from qtool.cli.app import app
from qtool.errors import ModelError, UnknownName
from qtool.formats.targets.rules import RULES, TARGETS
from qtool.records.target_lint import TargetLint

Tensors = dict[str, torch.Tensor]
Write = Callable[[dict[str, Any], Tensors], Path]
ATTENTION = "model.layers.0.self_attn"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a checkpoint: config.json with this quantization_config, and these tensors."""

    def written(quantization: dict[str, Any], tensors: Tensors, **config: object) -> Path:
        folder = tmp_path / "variant"
        folder.mkdir(exist_ok=True)
        about = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "quantization_config": quantization}
        (folder / "config.json").write_text(json.dumps(about | config))
        save_file(tensors, folder / "model.safetensors")
        return folder

    return written


def packed(name: str, rows: int = 128, columns: int = 256, *, bits: int = 4, group: int = 128) -> Tensors:
    """One layer as pack-quantized stores it."""
    return {
        f"{name}.weight_packed": torch.zeros(rows, columns * bits // 32, dtype=torch.int32),
        f"{name}.weight_scale": torch.ones(rows, -(-columns // group), dtype=torch.float16),
        f"{name}.weight_shape": torch.tensor([rows, columns]),
    }


def of_gptq(name: str, rows: int = 128, columns: int = 256) -> Tensors:
    return {f"{name}.qweight": torch.zeros(columns * 4 // 32, rows, dtype=torch.int32)}


def in_8_bits(name: str, dtype: torch.dtype) -> Tensors:
    return {f"{name}.weight": torch.zeros(128, 128, dtype=dtype), f"{name}.weight_scale": torch.ones(128, 1)}


def group(*targets: str, kind: str = "int", bits: int = 4, size: int | None = 128, **more: Any) -> dict[str, Any]:
    """One group of settings of compressed-tensors."""
    inputs = more.pop("inputs", None)
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "group_size": size} | more
    return {"targets": list(targets or ("Linear",)), "weights": weights, "input_activations": inputs}


def settings(*groups: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = {f"group_{index}": each for index, each in enumerate(groups)}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": named} | more


def gptq(**more: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False} | more


def rules(found: TargetLint) -> dict[str, str]:
    return {finding.rule: finding.consequence for finding in found.findings}


def test_a_clean_variant_has_no_objection_and_is_not_said_to_load(write: Write) -> None:
    folder = write(settings(group()), packed("model.layers.0.mlp.down_proj"))
    found = qtool.lint(folder, target="vllm", gpu="h100")
    assert found.findings == ()
    assert not found.stops
    about = [rule for rule in RULES if rule.target == "vllm" and rule.where.speaks_of("compressed-tensors")]
    assert found.rules_checked == len(about)
    assert found.rules_without_gpu == 0
    text = found.table()
    assert "no rule objects" in text
    assert "not known to work" in text


def test_rules_on_the_gpu_are_counted_where_none_is_named(write: Write) -> None:
    found = qtool.lint(write(settings(group()), packed("model.layers.0.mlp.down_proj")), target="vllm")
    assert found.rules_without_gpu == 6  # Marlin, int8 twice, fp8 twice, nvfp4
    assert "more rules need to know the GPU" in found.table()


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (packed("a.o_proj", 96, 256), "marlin-shape"),
        (packed("a.o_proj", 128, 192, group=64), "marlin-shape"),
    ],
    ids=["rows", "columns"],
)
def test_widths_that_marlin_does_not_take(write: Write, layer: Tensors, rule: str) -> None:
    found = qtool.lint(write(settings(group(size=64)), layer), target="vllm")
    assert rules(found) == {rule: "slow"}
    assert found.findings[0].layers == ("a.o_proj",)


def test_group_sizes(write: Write) -> None:
    folder = write(settings(group(size=16)), packed("a.o_proj", group=16))
    assert rules(qtool.lint(folder, target="vllm")) == {"marlin-group": "slow"}
    folder = write(settings(group(size=96)), packed("a.o_proj", group=96))
    assert rules(qtool.lint(folder, target="vllm")) == {"partial-group": "will not load", "marlin-group": "slow"}


def test_merged_layers_of_different_schemes(write: Write) -> None:
    names = [f"{ATTENTION}.{part}_proj" for part in "qkv"]
    groups = (group(names[0], bits=8), group(*names[1:]))
    tensors = packed(names[0], bits=8) | packed(names[1]) | packed(names[2])
    found = qtool.lint(write(settings(*groups), tensors), target="vllm")
    assert rules(found) == {"fused-schemes": "misread"}
    assert sorted(found.findings[0].layers) == sorted(names)
    assert found.stops


def test_a_skipped_part_of_a_merged_layer(write: Write) -> None:
    """One of the three in 16 bits is another scheme too."""
    plain = {f"{ATTENTION}.v_proj.weight": torch.zeros(128, 256, dtype=torch.float16)}
    tensors = of_gptq(f"{ATTENTION}.q_proj") | of_gptq(f"{ATTENTION}.k_proj") | plain
    assert rules(qtool.lint(write(gptq(), tensors), target="vllm")) == {"fused-skipped": "will not load"}


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("h100", {}),
        ("a100", {"fp8-gpu-older": "slow"}),
        ("8.6", {"fp8-gpu-older": "slow"}),
        ("V100", {"fp8-gpu-oldest": "will not load"}),
    ],
)
def test_fp8_by_gpu(write: Write, gpu: str, expected: dict[str, str]) -> None:
    floats = group(kind="float", bits=8, size=None, inputs={"num_bits": 8, "dynamic": True})
    folder = write(settings(floats), in_8_bits("a.o_proj", torch.float8_e4m3fn))
    assert rules(qtool.lint(folder, target="vllm", gpu=gpu)) == expected


@pytest.mark.parametrize(("gpu", "stops"), [("v100", True), ("t4", False), ("h100", False), ("b200", True)])
def test_int8_activations_by_gpu(write: Write, gpu: str, stops: bool) -> None:
    ints = group(bits=8, size=None, inputs={"num_bits": 8, "dynamic": True})
    folder = write(settings(ints), in_8_bits("a.o_proj", torch.int8))
    assert qtool.lint(folder, target="vllm", gpu=gpu).stops is stops


def test_nvfp4_before_blackwell(write: Write) -> None:
    four = group(kind="float", size=16, inputs={"num_bits": 4, "dynamic": "local"})
    tensors = {
        "a.o_proj.weight_packed": torch.zeros(128, 64, dtype=torch.uint8),
        "a.o_proj.weight_scale": torch.ones(1),
    }
    folder = write(settings(four), tensors)
    assert rules(qtool.lint(folder, target="vllm", gpu="h100")) == {"nvfp4-gpu": "slow"}
    assert rules(qtool.lint(folder, target="vllm", gpu="b200")) == {}


def test_a_quantized_head(write: Write) -> None:
    folder = write(settings(group()), packed("lm_head"))
    assert rules(qtool.lint(folder, target="vllm")) == {"quantized-head": "needs"}
    found = qtool.lint(folder, target="sglang")
    assert rules(found) == {"quantized-head": "misread"}
    assert found.stops


def test_a_cache_that_vllm_does_not_know(write: Write) -> None:
    cache = {"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": True}
    folder = write(settings(group(), kv_cache_scheme=cache), packed("a.o_proj"))
    found = qtool.lint(folder, target="vllm")
    assert rules(found) == {"cache-scheme": "will not load"}
    assert "the whole checkpoint" in found.table()
    folder = write(settings(group(), kv_cache_scheme=cache | {"type": "float"}), packed("a.o_proj"))
    assert rules(qtool.lint(folder, target="vllm")) == {}


def test_gptq_with_zero_points(write: Write) -> None:
    folder = write(gptq(sym=False), of_gptq("a.o_proj"))
    expected = {"gptq-zero-points": "misread", "marlin-asymmetric": "slow"}
    for target in ("vllm", "sglang", "gptqmodel"):
        assert rules(qtool.lint(folder, target=target)) == expected
    folder = write(gptq(sym=False, checkpoint_format="gptq_v2"), of_gptq("a.o_proj"))
    assert rules(qtool.lint(folder, target="sglang")) == {"marlin-asymmetric": "slow"}


def test_settings_for_single_layers_of_gptq(write: Write) -> None:
    dynamic = {r"+:.*q_proj": {"group_size": 16}, r"-:.*skipped": {}}
    folder = write(gptq(dynamic=dynamic), of_gptq("a.q_proj") | of_gptq("a.o_proj"))
    assert qtool.lint(folder, target="gptqmodel").findings[0].layers == ("a.q_proj",)


def test_transformers(write: Write) -> None:
    assert rules(qtool.lint(write(gptq(), of_gptq("a.o_proj")), target="transformers")) == {"gptq-packages": "needs"}
    folder = write(settings(group(symmetric=False)), packed("a.o_proj"))
    assert rules(qtool.lint(folder, target="transformers")) == {"asymmetric": "will not load", "decompressed": "slow"}
    folder = write(settings(group(symmetric=False), dequantize=True), packed("a.o_proj"))
    assert rules(qtool.lint(folder, target="transformers")) == {"decompressed": "slow"}
    assert rules(qtool.lint(folder, target="sglang")) == {"asymmetric": "needs"}


def test_experts_of_two_schemes(write: Write) -> None:
    tensors = packed("a.experts.0.up_proj") | {"a.experts.1.up_proj.weight": torch.zeros(128, 256)}
    found = qtool.lint(write(settings(group(), ignore=["a.experts.1.up_proj"]), tensors), target="transformers")
    assert rules(found)["experts-unlike"] == "will not load"


def test_bitsandbytes(write: Write) -> None:
    tensors = {
        "a.o_proj.weight": torch.zeros(64, 1, dtype=torch.uint8),
        "a.o_proj.weight.quant_state.bitsandbytes__nf4": torch.zeros(8, dtype=torch.uint8),
    }
    folder = write({"quant_method": "bitsandbytes", "load_in_4bit": True}, tensors)
    found = qtool.lint(folder, target="transformers")
    assert found.quantized_layers == 1
    assert rules(found) == {"bitsandbytes-packages": "needs"}


def test_llama_cpp_loads_gguf_only(write: Write) -> None:
    found = qtool.lint(write(settings(group()), packed("a.o_proj")), target="llama.cpp")
    assert rules(found) == {"no-gguf": "will not load", "rounded-twice": "misread"}


def test_a_gguf_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("blk.0.attn_q.weight", torch.zeros(64, 64).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {target: rules(qtool.lint(tmp_path / "model.gguf", target=target)) for target in TARGETS}
    assert found == {
        "vllm": {"gguf": "needs"},
        "transformers": {"gguf": "slow"},
        "sglang": {},
        "llama.cpp": {},
        "gptqmodel": {},
    }


def test_unknown_names_and_folders_that_are_no_models(write: Write, tmp_path: Path) -> None:
    folder = write(settings(group()), packed("a.o_proj"))
    with pytest.raises(UnknownName, match="did you mean vllm"):
        qtool.lint(folder, target="vlm")
    with pytest.raises(UnknownName, match=r"known: .*transformers"):
        qtool.lint(folder, target="onnx")
    with pytest.raises(UnknownName, match="h100"):
        qtool.lint(folder, target="vllm", gpu="h10")
    with pytest.raises(ModelError, match=r"no config\.json"):
        qtool.lint(tmp_path, target="vllm")


@pytest.mark.parametrize("damage", [{"bits": "four"}, {"bits": 0}, {"dynamic": {"+:(": {}}}, {"dynamic": {"a": 3}}])
def test_settings_that_make_no_sense(write: Write, damage: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="make sense"):
        qtool.lint(write(gptq(**damage), of_gptq("a.o_proj")), target="vllm")


def test_llm_int8_and_awq(write: Write) -> None:
    tensors = {"a.o_proj.weight": torch.zeros(128, 64, dtype=torch.int8), "a.o_proj.SCB": torch.ones(128)}
    found = qtool.lint(write({"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors), target="llama.cpp")
    assert found.quantized_layers == 1
    folder = write({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, of_gptq("a.o_proj"))
    assert rules(qtool.lint(folder, target="vllm", gpu="v100")) == {"awq-gpu": "will not load", "marlin-gpu": "slow"}
    assert rules(qtool.lint(folder, target="transformers")) == {"awq-packages": "needs"}


def test_a_format_that_no_rule_speaks_of_is_not_called_checked(write: Write) -> None:
    found = qtool.lint(write(settings(group()), packed("a.o_proj")), target="gptqmodel")
    assert (found.rules_checked, found.versions) == (0, ())
    assert "nothing was checked" in found.table()


def test_an_unknown_format_is_still_held_against_the_rules(write: Write) -> None:
    found = qtool.lint(write({"quant_method": "novel"}, {"a.o_proj.weight": torch.zeros(8, 8)}), target="llama.cpp")
    assert (found.format, rules(found)) == ("novel", {"no-gguf": "will not load"})


def test_the_command_ends_with_6_where_it_cannot_be_served(write: Write) -> None:
    folder = write(settings(group(size=96)), packed("model.layers.0.self_attn.o_proj", group=96))
    result = CliRunner().invoke(app, ["lint", str(folder), "--target", "vllm"])
    assert result.exit_code == 6
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "partial-group" in result.stdout
    as_json = CliRunner().invoke(app, ["lint", str(folder), "--target", "vllm", "--json"])
    assert as_json.exit_code == 6
    assert json.loads(as_json.stdout)["findings"][0]["layers"] == ["model.layers.0.self_attn.o_proj"]
    assert CliRunner().invoke(app, ["lint", str(folder), "--target", "gptqmodel"]).exit_code == 0


def test_layers_of_one_cause_are_counted(write: Write) -> None:
    tensors: Tensors = {}
    for index in range(12):
        tensors |= packed(f"model.layers.{index}.mlp.down_proj", rows=96)
    found = qtool.lint(write(settings(group()), tensors), target="vllm")
    assert len(found.findings[0].layers) == 12
    assert found.findings[0].layers[10] == "model.layers.10.mlp.down_proj"
    assert "model.layers.*.mlp.down_proj (12)" in found.table()


def test_every_rule_is_of_a_known_target_and_says_where_it_was_read() -> None:
    assert {rule.target for rule in RULES} == set(TARGETS)
    assert len({(rule.target, rule.name) for rule in RULES}) == len(RULES)
    assert all(rule.version and rule.source and rule.explanation for rule in RULES)
