"""Small random models of every architecture family that calibration promises to run, saved as folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY = 259  # of the tokenizer in tests/tiny_model.py
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WITHOUT_GROUPS = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_experts": 4, "decoder_sparse_step": 1}


def _configs() -> dict[str, Callable[[], Any]]:
    import transformers as t

    return {
        "llama": lambda: t.LlamaConfig(**SMALL),
        "qwen2": lambda: t.Qwen2Config(**SMALL),
        "qwen3": lambda: t.Qwen3Config(**SMALL, head_dim=8),
        "mistral": lambda: t.MistralConfig(**SMALL, sliding_window=8),
        "gemma": lambda: t.GemmaConfig(**SMALL, head_dim=8),
        "gemma2": lambda: t.Gemma2Config(**SMALL, head_dim=8, sliding_window=8, attn_logit_softcapping=0.5),
        "gemma3": lambda: t.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=8),
        "phi": lambda: t.PhiConfig(**SMALL),
        "phi3": lambda: t.Phi3Config(**SMALL),
        "gpt2": lambda: t.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
        ),
        "gpt_neox": lambda: t.GPTNeoXConfig(**WITHOUT_GROUPS),
        "bloom": lambda: t.BloomConfig(
            vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2, pad_token_id=0
        ),
        "opt": lambda: t.OPTConfig(**WITHOUT_GROUPS, ffn_dim=48, word_embed_proj_dim=16),
        "mixtral": lambda: t.MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2),
        "qwen3_moe": lambda: t.Qwen3MoeConfig(**SMALL, **EXPERTS, head_dim=8),
    }


NAMES = tuple(_configs())
WITH_EXPERTS = ("mixtral", "qwen3_moe")


def save(name: str, folder: Path, *, seed: int = 0, vocabulary: int = VOCABULARY) -> Path:
    """A random model of architecture `name` in `folder`, in float32, with a byte-level tokenizer."""
    import torch
    from tiny_model import make_tokenizer
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = _configs()[name]()
    config.vocab_size = vocabulary
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
