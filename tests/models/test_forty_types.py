"""The architectures in most use, as tiny models: names, blocks, numbers. All: benchmarks/architectures.py."""

from contextlib import closing
from pathlib import Path

import pytest
import torch

from benchmarks.tiny_architectures import make
from qtool.engine.load import open_engine
from qtool.errors import ModelError
from qtool.models.completeness import load_base, refuse_incomplete_folder
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.streaming.block_stream import BlockStream

TYPES = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "gemma3", "phi", "phi3", "phimoe"),
    *("gpt2", "gpt_neox", "gpt_neo", "gptj", "gpt_bigcode", "starcoder2", "opt", "bloom", "mpt", "falcon", "codegen"),
    *("mixtral", "qwen2_moe", "qwen3_moe", "olmo", "olmo2", "olmoe", "granite", "granitemoe", "cohere", "cohere2"),
    *("stablelm", "smollm3", "exaone4", "glm4", "ernie4_5", "mamba", "lfm2", "bert"),
)
IDS = torch.arange(3, 15)[None]


@pytest.mark.parametrize("model_type", TYPES)
def test_its_files_are_understood_and_read_block_by_block_it_is_the_same_model(model_type: str, tmp_path: Path) -> None:
    folder = make(model_type, tmp_path / "model")
    refuse_incomplete_folder(folder)
    streamed = StreamedModel(folder)
    assert len(streamed.architecture.blocks) == 2
    base = load_base(folder)
    with torch.inference_mode():
        expected = base(IDS, use_cache=False).logits
    # float32 in another order of sums: experts one by one, eager attention or SDPA
    assert (streamed.logits([IDS])[0] - expected).abs().max() < 1e-4 * expected.std() + 1e-5


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("git", "cannot be run block by block"),
        ("reformer", "cannot be run block by block"),
        ("prophetnet", "the checkpoint has no tensor for prophetnet.decoder.word_embeddings.weight"),
    ],
)
def test_what_cannot_be_run_apart_is_refused_in_one_line(model_type: str, reason: str, tmp_path: Path) -> None:
    stream = BlockStream(make(model_type, tmp_path / "model"), dtype=torch.float32, device=torch.device("cpu"))
    with pytest.raises(ModelError, match=f"{reason}.*method rtn"), stream.embedding() as embed:
        embed(0, IDS)


def test_buffers_of_a_tower_stay_out_of_memory(tmp_path: Path) -> None:
    streamed = StreamedModel(make("phi4_multimodal", tmp_path / "model"))
    assert streamed.logits([IDS])[0].isfinite().all()


def test_a_model_with_capped_attention_is_held_against_itself_without_the_fused_one(tmp_path: Path) -> None:
    """Its own spread is measured with what computes the same: torch's fused attention has no cap and refuses."""
    with closing(open_engine(make("vaultgemma", tmp_path / "model"), dtype="float32", slots=2)) as engine:
        assert "one request at a time" not in " ".join(engine.notes)
