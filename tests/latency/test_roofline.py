"""What one decoding step must read."""

from pathlib import Path

from qtool.latency.roofline import step_bytes, unrouted
from qtool.models.checkpoint import open_checkpoint
from tests.engine.small_models import make_model


def test_a_token_reads_only_the_experts_it_is_routed_to(tmp_path: Path) -> None:
    make_model("qwen3_moe").save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert unrouted(checkpoint.config) == 0.5  # two of four
    experts = sum(checkpoint.tensor_bytes(name) for name in checkpoint.names if ".experts." in name)
    table = checkpoint.tensor_bytes("model.embed_tokens.weight")
    assert experts > 0
    assert step_bytes(tmp_path, checkpoint.bytes) == checkpoint.bytes - table - experts // 2


def test_a_model_without_experts_reads_all_but_its_table(tmp_path: Path) -> None:
    make_model("llama").save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    table = checkpoint.tensor_bytes("model.embed_tokens.weight")
    assert step_bytes(tmp_path, checkpoint.bytes) == checkpoint.bytes - table
    assert step_bytes(tmp_path, 0) == 0  # a server told nothing of its weights
