"""Random models of a few thousand parameters, one of each supported architecture."""

from typing import Any

import torch

VOCABULARY = 96
CONTEXT = 128
_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GATED = {**_SHARED, "intermediate_size": 48, "num_key_value_heads": 2}
_EXPERTS = {**_GATED, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _GATED,
    "qwen2": _GATED,
    "qwen3": {**_GATED, "head_dim": 16},
    "mistral": {**_GATED, "sliding_window": 5},
    "gemma": {**_GATED, "head_dim": 16},
    "gemma2": {**_GATED, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16},
    "phi": {**_SHARED, "intermediate_size": 48},
    "phi3": _GATED,
    "phi3 partly rotated": {**_GATED, "partial_rotary_factor": 0.5},  # Phi-4-mini
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": {**_SHARED, "intermediate_size": 48},
    "opt": {**_SHARED, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "gemma3_text": {**_GATED, "head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16},
    "mixtral": _EXPERTS,
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 24},
    "qwen3_moe": {**_EXPERTS, "head_dim": 16},
    "olmoe": _EXPERTS,
    "phimoe": _EXPERTS,
    "llama4_text": {**_EXPERTS, "head_dim": 16, "intermediate_size_mlp": 48},
    "stablelm": _GATED,
    "starcoder2": _GATED,
    "cohere": _GATED,
    "cohere2": {**_GATED, "head_dim": 16, "sliding_window": 6},
    "olmo2": _GATED,
    "granite": _GATED,
    "glm4": {**_GATED, "head_dim": 16},
    "nemotron": _GATED,
    "smollm3": _GATED,
    "exaone4": {**_GATED, "sliding_window": 6},
    "persimmon": {**_SHARED, "intermediate_size": 48},
    "gptj": {**_GPT2, "rotary_dim": 8},
    "codegen": {**_GPT2, "rotary_dim": 8},
}
# their attention cannot be replaced: run whole, by transformers
WHOLE: dict[str, dict[str, Any]] = {
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {**_SHARED, "alibi": False, "multi_query": True, "new_decoder_architecture": False},
    "gpt_neo": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": CONTEXT,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 6,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
}


def make_model(architecture: str = "llama", *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A random model in evaluation mode whose logits differ clearly from token to token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(architecture.partition(" ")[0], **{**CONFIGS, **WHOLE}[architecture])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype).eval()


def make_engine(model: Any, *, slots: int = 4, context_tokens: int | None = None, decode: Any = None) -> Any:
    """qtool's engine over `model`."""
    from qtool.engine.backends.qtool import QtoolEngine

    return QtoolEngine(
        model,
        device=torch.device("cpu"),
        dtype=next(model.parameters()).dtype,
        slots=slots,
        context_tokens=context_tokens,
        decode=decode,
    )
