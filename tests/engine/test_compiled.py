"""Decoding in one compiled call: what the model's own forward gives, the same bits in any company, and never needed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from qtool.engine.contract import GenerationRequest
from qtool.engine.drive import generate
from qtool.engine.layers import compiled
from qtool.engine.layers.compiled import CompiledDecoder, NotCompiled
from qtool.engine.layers.network import Network
from qtool.engine.layers.weights import load_model
from qtool.engine.scheduling import forward_inputs
from qtool.engine.scheduling.ragged import Row, plan_step
from qtool.engine.scheduling.slots import KeyValueSlots
from qtool.kernels.cpu import native_cpu
from qtool.progress import Silent
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe
from tests.engine.small_models import VOCABULARY, make_engine, make_model
from tests.tiny_model import make_tiny_llama

pytestmark = pytest.mark.skipif(bool(native_cpu.refusal()), reason=f"not here: {native_cpu.refusal()}")
CPU = torch.device("cpu")
LENGTH = 24  # more than the window of the Mistral


def opened(
    model: Any, *, slots: int = 4, context: int = LENGTH, dtype: torch.dtype = torch.float32
) -> tuple[Network, KeyValueSlots]:
    network = Network(model, device=CPU, dtype=dtype)
    return network, KeyValueSlots(network.shapes, slots=slots, context=context, dtype=dtype, device=CPU)


def with_biases(model: Any) -> Any:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def one_by_one(decoder: CompiledDecoder, ids: torch.Tensor, slot: int = 0) -> torch.Tensor:
    return torch.cat([decoder.decode([Row(slot, place, 1)], [int(token)]) for place, token in enumerate(ids)])


DESCRIBED = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "phi3 partly rotated",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_bigcode",
    "stablelm",
    "starcoder2",
    "nemotron",
    "smollm3",
    "exaone4",
    "granite",
)


def with_norms(model: Any) -> Any:
    """Norms that are neither 1 nor 0: a factor forgotten, or added to 1 where it is not, then changes the logits."""
    generator = torch.Generator().manual_seed(4)
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    return model


@pytest.mark.parametrize("architecture", DESCRIBED)
def test_tokens_one_by_one_give_the_logits_of_the_whole_sequence(architecture: str) -> None:
    network, memory = opened(with_norms(with_biases(make_model(architecture))))
    ids = torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(1))
    wanted = network.forward(ids, plan_step([Row(0, 0, LENGTH)], CPU), memory, torch.arange(LENGTH))
    memory.clear(0)
    found = one_by_one(CompiledDecoder(network, memory), ids)
    # two layers of float32 sums of at most 48 terms: a few hundred roundings of 2^-24
    assert (found - wanted).abs().max() < 512 * 2.0**-24 * wanted.abs().max()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gemma3_text", "gpt2"])
def test_a_bfloat16_model_is_nearer_to_exact_numbers_than_its_own_forward(architecture: str) -> None:
    """Only keys, values and weights are bfloat16; its own forward rounds every number in between."""
    model = with_norms(with_biases(make_model(architecture, dtype=torch.bfloat16)))
    wide, wide_memory = opened(copy.deepcopy(model).float())
    network, memory = opened(model, dtype=torch.bfloat16)
    ids = torch.randint(0, VOCABULARY, (LENGTH,), generator=torch.Generator().manual_seed(1))
    own = network.forward(ids, plan_step([Row(0, 0, LENGTH)], CPU), memory, torch.arange(LENGTH)).float()
    memory.clear(0)
    found = one_by_one(CompiledDecoder(network, memory), ids)
    exact = wide.forward(ids, plan_step([Row(0, 0, LENGTH)], CPU), wide_memory, torch.arange(LENGTH))
    assert found.dtype is torch.float32
    assert memory.layer(0)[0].dtype is torch.bfloat16
    assert (found - exact).norm() < 0.8 * (own - exact).norm()


RECIPES = {
    "w4a16-g32": Recipe("w4a16", "rtn", group_size=32),
    "w8a16": Recipe("w8a16", "rtn"),
    "w8a8": Recipe("w8a8", "rtn", activations="dynamic"),
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_quantized_layers_take_part(name: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base", tied=True)
    quantize(base, RECIPES[name], tmp_path / name, name=name, calibration=None, progress=Silent(), whole_check=False)
    loaded = load_model(tmp_path / name, dtype=torch.float32, device=CPU)
    network, memory = opened(loaded.model)
    ids = torch.arange(3, 3 + LENGTH) % network.vocabulary
    wanted = network.forward(ids, plan_step([Row(0, 0, LENGTH)], CPU), memory, torch.arange(LENGTH))
    found = one_by_one(CompiledDecoder(network, memory), ids, slot=1)
    # the same codes are multiplied; an input that falls to the other side of a rounding moves by one of 255 steps
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_a_row_has_the_same_bits_in_any_company_and_with_any_threads() -> None:
    network, memory = opened(make_model(), slots=9)
    decoder = CompiledDecoder(network, memory)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, VOCABULARY, (9, LENGTH), generator=generator)
    alone = one_by_one(decoder, ids[4], slot=4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = [
            decoder.decode([Row(slot, place, 1) for slot in range(9)], ids[:, place].tolist())[4]
            for place in range(LENGTH)
        ]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, torch.stack(together))


def test_a_row_of_nan_stays_alone() -> None:
    model = make_model()
    model.get_input_embeddings().weight.data[7] = torch.nan
    network, memory = opened(model)
    decoder = CompiledDecoder(network, memory)
    found = decoder.decode([Row(0, 0, 1), Row(1, 0, 1), Row(2, 0, 1)], [5, 7, 6])
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


def test_answers_are_those_without_it_also_while_prompts_join(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [GenerationRequest(tuple(range(5, 5 + length)), 9) for length in (3, 12, 1, 20, 7, 2)]
    engine = make_engine(make_model(), slots=3)
    assert engine._scheduler.feeder.compiled is not None
    found = [generation.ids for generation in generate(engine, requests)]
    monkeypatch.setattr(forward_inputs, "compiled_decoder", lambda *given: NotCompiled("not now"))
    assert found == [generation.ids for generation in generate(make_engine(make_model(), slots=3), requests)]


def test_who_cannot_run_this_way_runs_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for refused, why in (
        (make_model("mixtral"), "way down"),
        (with_another_activation(), "activation"),
        (make_model("olmo2"), "all heads together"),
        (make_model("cohere"), "logit_scale"),
    ):
        network, memory = opened(refused)
        with pytest.raises(NotCompiled, match=why):
            CompiledDecoder(network, memory)
    engine = make_engine(make_model("mixtral"))
    assert engine._scheduler.feeder.compiled is None
    assert "way down" in " ".join(engine.notes)
    network, memory = opened(make_model())
    monkeypatch.setattr(compiled.native_cpu, "refusal", lambda: "switched off")
    assert str(compiled.compiled_decoder(network, memory)) == "switched off"


def with_another_activation() -> Any:
    model = make_model()
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.Tanh()
    return model


def test_a_model_that_only_looks_alike_is_found_out_by_its_logits() -> None:
    model = make_model()
    layer = model.model.layers[1]
    plain = layer.mlp.forward
    layer.mlp.forward = lambda state: plain(state) * 0.5  # nothing that can be seen says so
    network, memory = opened(model)
    with pytest.raises(NotCompiled, match="off the model's own"):
        CompiledDecoder(network, memory)
    assert not any(cells.any() for index in (0, 1) for cells in memory.layer(index))
