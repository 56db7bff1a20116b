"""Blocks, linear layers, fused groups; the empty model; the base model in memory."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_model import make_tiny_gpt2, make_tiny_llama

from qtool.errors import ModelError
from qtool.models.architecture import describe, describe_model
from qtool.models.checkpoint import open_checkpoint
from qtool.models.completeness import load_base
from qtool.models.skeleton import empty_model


def test_llama_is_described(llama: Path) -> None:
    found = describe(llama)
    assert found.blocks == ("model.layers.0", "model.layers.1")
    assert (found.head, found.embedding, found.tied) == ("lm_head", "model.embed_tokens", False)
    assert len(found.linears) == 2 * 7 + 1
    key = found.layer("model.layers.1.self_attn.k_proj")
    assert (key.rows, key.columns, key.block) == (32, 64, 1)
    assert key.fused_group == tuple(f"model.layers.1.self_attn.{part}_proj" for part in "qkv")
    assert found.layer("model.layers.0.mlp.down_proj").fused_group == ()
    assert found.layer("lm_head").block is None
    assert len(found.in_block(0)) == 7


def test_every_layer_has_its_weight_in_the_checkpoint(tmp_path: Path) -> None:
    for folder in (make_tiny_llama(tmp_path / "llama"), make_tiny_gpt2(tmp_path / "gpt2")):
        checkpoint = open_checkpoint(folder)
        for layer in describe(folder).linears:
            if layer.name == "lm_head" and layer.weight not in checkpoint.names:
                continue  # tied to the embedding
            stored = (layer.columns, layer.rows) if layer.turned else (layer.rows, layer.columns)
            assert checkpoint.shape(layer.weight) == stored


def test_gpt2_layers_are_transposed_until_they_are_turned(tmp_path: Path) -> None:
    folder, name = make_tiny_gpt2(tmp_path / "gpt2"), "transformer.h.0.attn.c_attn"
    layer = describe_model(empty_model(folder)).layer(name)
    assert (layer.rows, layer.columns, layer.transposed, layer.turned, layer.bias) == (192, 64, True, False, True)
    layer = describe(folder).layer(name)
    assert (layer.rows, layer.columns, layer.transposed, layer.turned, layer.bias) == (192, 64, False, True, True)


def test_empty_model_given_its_weights_answers_like_the_base(tmp_path: Path) -> None:
    for folder in (make_tiny_llama(tmp_path / "llama"), make_tiny_gpt2(tmp_path / "gpt2")):
        checkpoint, model = open_checkpoint(folder), empty_model(folder)
        assert all(parameter.is_meta for parameter in model.parameters())
        assert not any(buffer.is_meta for buffer in model.buffers())
        tensors = {name: checkpoint.tensor(name) for name in checkpoint.names}
        if "lm_head.weight" not in tensors:
            tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
        model.load_state_dict(tensors, assign=True)
        ids = torch.arange(3, 40)[None]
        with torch.inference_mode():
            assert torch.equal(model(ids).logits, load_base(folder)(ids).logits)


def test_base_is_loaded_in_its_own_type(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "llama", dtype=torch.bfloat16)
    model = load_base(folder)
    assert model.dtype is torch.bfloat16
    assert not model.training
    assert load_base(folder, dtype=torch.float32).dtype is torch.float32


def test_quantized_checkpoint_is_no_base(llama: Path, edit_config: Callable[..., None]) -> None:
    edit_config(llama, quantization_config={"quant_method": "unheard_of"})
    with pytest.raises(ModelError, match="is a quantized checkpoint"):
        load_base(llama)


def test_missing_and_unexpected_tensors_are_refused(llama: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama / "model.safetensors")
    weight = tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensor that the model needs is not in the files, first .*up_proj"):
        load_base(llama)
    tensors |= {"model.layers.0.mlp.up_proj.weight": weight, "model.layers.0.mlp.ghost.weight": weight.clone()}
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensor that the files hold is unknown to the model, first .*ghost"):
        load_base(llama)


def test_tensor_of_another_shape_is_refused(llama: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 64)
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"up_proj.* is \(3, 64\), and config.json asks for \(128, 64\)"):
        load_base(llama)


@pytest.mark.parametrize("own", [True, False])
def test_a_config_that_ties_is_believed_only_where_the_files_hold_one_matrix(
    tmp_path: Path, edit_config: Callable[..., None], own: bool
) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_tiny_llama(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    if not own:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, tie_word_embeddings=True)
    assert describe(folder).tied is not own
    loaded = load_base(folder)
    assert torch.equal(loaded.lm_head.weight, tensors["lm_head.weight"])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model."])
def test_a_prefix_before_every_name_is_told(llama: Path, prefix: str) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(llama / "model.safetensors")
    renamed = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    save_file(renamed, llama / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{len(tensors)} tensors have the prefix '{prefix}'"):
        load_base(llama)


def test_more_layers_than_tensors_are_refused_before_they_are_built(
    llama: Path, edit_config: Callable[..., None]
) -> None:
    edit_config(llama, num_hidden_layers=10_000_000)
    with pytest.raises(ModelError, match=r"asks for 10,000,000 layers .* 21 tensors in all"):
        describe(llama)


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": "1024"},
        {"hidden_act": "quux"},
        {"num_attention_heads": 0},
        {"rope_parameters": {"rope_type": "zigzag", "rope_theta": 1e4}},
        {"rope_parameters": [1, 2]},
        {"pad_token_id": 32_000},
        {"hidden_size": "wide"},
        {"num_hidden_layers": 2.5},
    ],
)
def test_a_value_that_transformers_cannot_use_is_one_line(
    llama: Path, edit_config: Callable[..., None], changes: dict[str, object]
) -> None:
    edit_config(llama, **changes)
    with pytest.raises(ModelError, match=r"transformers cannot (use config|build the model of config)") as caught:
        describe(llama)
    assert "\n" not in str(caught.value)
