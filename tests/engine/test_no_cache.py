"""Models whose cache in transformers is missing or wrong are run without one, and say so."""

from pathlib import Path

import pytest
import torch
import transformers
from tiny_model import make_tiny_llama

from qtool.engine.backends.transformers import cache_is_right
from qtool.engine.contract import GenerationRequest
from qtool.engine.drive import generate
from qtool.engine.load import open_engine
from qtool.models.completeness import load_base
from qtool.models.skeleton import empty_model


def test_a_model_without_a_cache_generates_what_whole_passes_prefer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    model = transformers.OpenAIGPTLMHeadModel(config).eval()
    model.save_pretrained(tmp_path)
    engine = open_engine(tmp_path, backend="transformers", dtype="float32", slots=1)
    try:
        (answer,) = generate(engine, [GenerationRequest((3, 4, 5), 6)])
        assert any("every token reads the whole text" in note for note in engine.notes)
    finally:
        engine.close()
    text = [3, 4, 5]
    with torch.inference_mode():
        for _ in range(6):
            text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
    assert list(answer.ids) == text[3:]


def test_a_cache_that_is_right_is_used_and_one_that_forgets_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_base(make_tiny_llama(tmp_path / "model"))
    assert cache_is_right(model, torch.device("cpu"))
    monkeypatch.setattr("qtool.engine.backends.transformers.feed", lambda model, ids, cache: (model(ids).logits, None))
    assert not cache_is_right(model, torch.device("cpu"))


def test_a_buffer_that_a_module_around_it_fills_is_filled(tmp_path: Path) -> None:
    config = transformers.FalconH1Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=2, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=8,
        ssm_multipliers=[0.5, 2.0, 0.25, 1.5, 3.0],
    )  # fmt: skip
    model = transformers.FalconH1ForCausalLM(config)
    model.save_pretrained(tmp_path)
    name = "model.layers.0.mamba.mup_vector"
    assert torch.equal(empty_model(tmp_path).get_buffer(name), model.get_buffer(name))
