"""Experts taken apart and Conv1D turned: the same answers, whatever the checkpoint calls its tensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import make_tiny_gpt2, make_tiny_llama, make_tiny_mixtral, make_tiny_qwen_moe

from qtool.errors import ModelError
from qtool.formats.tensor_names import open_as_used
from qtool.models.architecture import describe, describe_model
from qtool.models.checkpoint import open_checkpoint
from qtool.models.completeness import load_base
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import Experts, TurnedLinear, unfold

Maker = Callable[[Path], Path]


def mixtral_joined(folder: Path) -> Path:
    return make_tiny_mixtral(folder, joined=True)


def mixtral_apart(folder: Path) -> Path:
    return make_tiny_mixtral(folder, joined=False)


@pytest.mark.parametrize("maker", [make_tiny_gpt2, mixtral_joined, mixtral_apart, make_tiny_qwen_moe])
def test_unfolded_model_given_its_stored_weights_answers_like_the_base(maker: Maker, tmp_path: Path) -> None:
    folder = maker(tmp_path / "model")
    model: Any = unfold(empty_model(folder))
    checkpoint, _ = open_as_used(folder, model)
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.names}
    tensors.setdefault("lm_head.weight", tensors.get("transformer.wte.weight", torch.empty(0)))
    model.load_state_dict(tensors, assign=True)  # strict: every name is found, none is left
    base, ids = load_base(folder), torch.arange(3, 43)[None]
    with torch.inference_mode():
        expected = base(ids).logits
        scale = expected.std()
        # float32 sums over at most 128 terms, in another order where experts are run one by one
        assert (model(ids).logits - expected).abs().max() < 1e-5 * scale
        assert (unfold(base)(ids).logits - expected).abs().max() < 1e-5 * scale


def test_weights_of_a_loaded_model_are_not_copied(tmp_path: Path) -> None:
    base = load_base(mixtral_apart(tmp_path / "model"))
    joined = base.model.layers[0].mlp.experts.gate_up_proj
    first = joined.data_ptr()
    unfold(base)
    expert = base.model.layers[0].mlp.experts[1]
    assert expert.gate_proj.weight.data_ptr() == first + joined[0].nbytes
    assert expert.up_proj.weight.data_ptr() == first + joined[0].nbytes + expert.gate_proj.weight.nbytes


def test_layers_of_experts_are_described(tmp_path: Path) -> None:
    found = describe(make_tiny_qwen_moe(tmp_path / "model"))
    place = "model.layers.0.mlp.experts"
    layer = found.layer(f"{place}.3.gate_proj")
    assert (layer.rows, layer.columns, layer.block, layer.experts) == (32, 64, 0, place)
    assert layer.fused_group == (f"{place}.3.gate_proj", f"{place}.3.up_proj")
    assert found.layer("model.layers.0.mlp.shared_expert.up_proj").experts == ""
    assert found.stacks == ()
    assert set(found.routers) == {
        f"model.layers.{n}.mlp.{gate}" for n in (0, 1) for gate in ("gate", "shared_expert_gate")
    }


def test_only_experts_that_are_asked_for_run(tmp_path: Path) -> None:
    base: Any = unfold(load_base(make_tiny_qwen_moe(tmp_path / "model")))
    experts = base.model.layers[0].mlp.experts
    ran: list[int] = []
    for index, expert in enumerate(experts):
        expert.register_forward_hook(lambda _, inputs, __, index=index: ran.append((index, len(inputs[0]))))
    hidden, shares = torch.randn(3, 64), torch.full((3, 2), 0.5)
    with torch.inference_mode():
        given = experts(hidden, torch.tensor([[1, 3], [3, 1], [1, 4]]), shares)  # 4 is one past the last: nobody
        alone = experts(hidden[2:], torch.tensor([[1, 4]]), shares[2:])
    assert ran == [(1, 3), (3, 2), (1, 1)]
    torch.testing.assert_close(given[2:], alone)


@pytest.mark.parametrize("joined", [True, False])
def test_names_go_there_and_back(joined: bool, tmp_path: Path) -> None:
    folder = make_tiny_mixtral(tmp_path / "model", joined=joined)
    _, names = open_as_used(folder, unfold(empty_model(folder)))
    stored = names.stored("model.layers.1.mlp.experts.2.up_proj.weight_packed")
    assert stored == "model.layers.1.block_sparse_moe.experts.2.w3.weight_packed"  # as Mixtral is published
    assert names.used(stored) == "model.layers.1.mlp.experts.2.up_proj.weight_packed"
    assert names.stored("model.layers.0.mlp.gate.weight") == "model.layers.0.block_sparse_moe.gate.weight"
    assert names.stored("model.norm.weight") == names.used("model.norm.weight") == "model.norm.weight"


def test_early_gpt2_files_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_tiny_gpt2(tmp_path / "model")
    tensors = {
        name.removeprefix("transformer."): value for name, value in load_file(folder / "model.safetensors").items()
    }
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 8, 8).tril()  # the mask that old versions stored
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model: Any = unfold(empty_model(folder))
    checkpoint, _ = open_as_used(folder, model)
    assert set(checkpoint.names) == set(model.state_dict()) - {"lm_head.weight"}
    turned = checkpoint.tensor("transformer.h.0.attn.c_attn.weight")
    assert torch.equal(turned, tensors["h.0.attn.c_attn.weight"].t())
    assert torch.equal(checkpoint.rows("transformer.h.0.attn.c_attn.weight", 5, 9), turned[5:9])


def test_other_models_are_left_alone(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model")
    model: Any = unfold(empty_model(folder))
    assert not any(isinstance(module, Experts | TurnedLinear) for module in model.modules())
    assert open_as_used(folder, model)[0].entries == open_checkpoint(folder).entries


def test_experts_of_another_form_stay_joined(tmp_path: Path) -> None:
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=2,
        num_experts_per_tok=1,
    )
    with torch.device("meta"):
        found = describe_model(unfold(GptOssForCausalLM(config)))
    assert {stack.name.rpartition(".")[2] for stack in found.stacks} == {"gate_up_proj", "down_proj"}
    assert not any(layer.experts for layer in found.linears)


def test_joined_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = mixtral_joined(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.experts.down_proj"
    tensors[name] = tensors[name][:3].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"down_proj is \(3, 64, 128\), which is not 4 experts of down_proj"):
        open_as_used(folder, unfold(empty_model(folder)))
