"""GGUF files: the variant's own numbers, names and tokens, and what llama.cpp makes of them where it is installed."""

from pathlib import Path

import pytest
import torch
from gguf_models import merging
from tiny_model import make_tiny_gpt2, make_tiny_llama, make_tiny_mixtral, make_tiny_qwen_moe, make_tokenizer

from qtool.errors import ModelError, QuantizationError, StoreError
from qtool.formats.stored_weights import StoredWeight
from qtool.progress import Silent
from qtool.quantize.output.conversion import convert
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe

gguf = pytest.importorskip("gguf")


def _weight(bits: int, group: int, *, zeros: bool, dtype: torch.dtype = torch.float16) -> StoredWeight:
    generator = torch.Generator().manual_seed(bits + group)
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (8, 128), generator=generator, dtype=torch.int8)
    groups = 1 if group == -1 else 128 // group
    scales = (torch.randint(1, 64, (8, groups), generator=generator) / 1024).to(dtype)
    points = torch.randint(-half, half, (8, groups), generator=generator, dtype=torch.int8) if zeros else None
    return StoredWeight(codes, scales, points, bits, group)


@pytest.mark.parametrize(
    ("bits", "group", "zeros", "kind"),
    [
        (4, 32, False, "Q4_0"),
        (4, 64, False, "Q4_0"),
        (4, -1, False, "Q4_0"),
        (4, 32, True, "Q4_1"),
        (8, 32, False, "Q8_0"),
    ],
)
def test_a_reader_makes_the_same_numbers_of_the_blocks(bits: int, group: int, zeros: bool, kind: str) -> None:
    from qtool.formats.gguf.blocks import exact, numbers, packed

    weight = _weight(bits, group, zeros=zeros)
    block = packed(weight, "layer")
    assert block.kind == kind
    assert torch.equal(numbers(block), exact(weight))


def test_scales_that_float16_cannot_hold_are_refused() -> None:
    from qtool.formats.gguf.blocks import packed

    weight = _weight(4, 32, zeros=False, dtype=torch.float32)
    with pytest.raises(QuantizationError, match="down_proj: scales in float32 do not fit"):
        packed(StoredWeight(weight.codes, weight.scales / 3, None, 4, 32), "down_proj")


def _model(kind: str, folder: Path) -> Path:
    """A tiny random model of a type, in bfloat16, whose rows are whole blocks."""
    import transformers

    if kind == "llama":
        return merging(make_tiny_llama(folder, tied=True, dtype=torch.bfloat16))
    tokenizer = make_tokenizer()
    names = {
        "mistral": "Mistral",
        "qwen2": "Qwen2",
        "qwen3": "Qwen3",
        "gemma2": "Gemma2",
        "gemma3": "Gemma3",
        "phi3": "Phi3",
    }
    config_class = getattr(transformers, f"{names[kind]}{'Text' if kind == 'gemma3' else ''}Config")
    config = config_class(
        vocab_size=len(tokenizer) + 5,  # as published: more rows than tokens
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6 if kind == "gemma3" else 2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=256,
        sliding_window=None if kind in ("mistral", "qwen2", "qwen3", "phi3") else 64,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=1,
        **({"query_pre_attn_scalar": 16} if kind.startswith("gemma") else {}),
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = getattr(transformers, f"{names[kind]}ForCausalLM")(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return merging(folder)


_KINDS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")


@pytest.mark.parametrize("kind", _KINDS)
def test_every_family_is_written_whole(kind: str, tmp_path: Path) -> None:
    base = _model(kind, tmp_path / "base")
    recipe = Recipe(scheme="w4a16", method="rtn", group_size=32)
    quantize(base, recipe, tmp_path / "w4", name="w4", calibration=None, progress=Silent(), whole_check=False)
    found = convert(tmp_path / "w4", tmp_path / "w4.gguf", progress=Silent())
    assert dict(found.kinds)["Q4_0"] > 0
    assert found.rounded == 0
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []
    _agrees_with_llama_cpp(tmp_path / "w4.gguf", tmp_path / "w4")


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_experts_are_stacked(kind: str, tmp_path: Path) -> None:
    make = {"mixtral": lambda: make_tiny_mixtral(tmp_path / "base", joined=True)}.get(
        kind, lambda: make_tiny_qwen_moe(tmp_path / "base")
    )
    found = convert(merging(make()), tmp_path / "base.gguf", progress=Silent())
    assert found.compared > 8
    _agrees_with_llama_cpp(tmp_path / "base.gguf", tmp_path / "base")


def test_a_chosen_type_of_embedding_is_counted(tmp_path: Path) -> None:
    base = merging(make_tiny_llama(tmp_path / "base", dtype=torch.bfloat16))
    found = convert(base, tmp_path / "base.gguf", progress=Silent(), embedding="q8_0")
    assert dict(found.kinds)["Q8_0"] == 2
    assert found.rounded > 0


def test_what_gguf_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base = merging(make_tiny_llama(tmp_path / "base", dtype=torch.bfloat16))
    recipe = Recipe(scheme="w8a8", method="rtn", activations="dynamic")
    quantize(base, recipe, tmp_path / "w8a8", name="w8a8", calibration=None, progress=Silent(), whole_check=False)
    with pytest.raises(QuantizationError, match="8-bit activations have no place in GGUF"):
        convert(tmp_path / "w8a8", tmp_path / "w8a8.gguf", progress=Silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "w8a8"]
    (tmp_path / "there.gguf").write_text("")
    with pytest.raises(StoreError, match="already exists"):
        convert(base, tmp_path / "there.gguf", progress=Silent())


def test_a_model_llama_cpp_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model_type 'gpt2' cannot be written as GGUF"):
        convert(make_tiny_gpt2(tmp_path / "base"), tmp_path / "base.gguf", progress=Silent())


def _agrees_with_llama_cpp(file: Path, folder: Path) -> None:
    """llama.cpp cuts text into the same ids and, where it is installed, gives nearly the same probabilities: it rounds
    inputs of quantized products to 8 bits, which moves a logit by far less than these models' spread of about 10."""
    try:
        import llama_cpp
    except ImportError:
        return
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "Hello, world! 12 + 34\n\tis 46, isn't it?"
    engine = llama_cpp.Llama(str(file), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    ids = AutoTokenizer.from_pretrained(folder).encode(text)
    try:
        assert engine.tokenize(text.encode(), add_bos=True) == ids
        engine.eval(ids)
        theirs = torch.tensor(np.array(engine.scores[: len(ids)])).log_softmax(-1)
    finally:
        engine.close()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        ours = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    divergence = float((ours.exp() * (ours - theirs)).sum(-1).mean())
    assert divergence < 0.02
