"""What a GGUF file says of a model beside its tensors: sizes, attention, rotary positions."""

from typing import Any

import torch
from torch import Tensor

from qtool.errors import ModelError
from qtool.formats.gguf.families import Family

_LAYER_KINDS = {"sliding_attention": True, "full_attention": False}


def write_keys(writer: Any, family: Family, config: Any, *, file_type: str, name: str) -> None:
    """Adds every key that llama.cpp reads for a model of this family."""
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_quantized_by("qtool")
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    _attention(writer, family, config)
    _experts(writer, config)
    _rotary(writer, family, config)


def rotary_factors(config: Any) -> Tensor | None:
    """Llama 3's divisors of each rotary frequency, float32 [head_dim / 2], which lie in a tensor of their own."""
    parameters = _parameters(config)
    if parameters.get("rope_type", "default") != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width = head_width(config)
    plain = float(parameters["rope_theta"]) ** -(torch.arange(0, width, 2, dtype=torch.int64).float() / width)
    factors: Tensor = (plain / scaled).float()
    return factors


def head_width(config: Any) -> int:
    """Columns of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _attention(writer: Any, family: Family, config: Any) -> None:
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    width = head_width(config)
    writer.add_key_length(width)
    writer.add_value_length(width)
    if family.name == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    elif getattr(config, "attn_logit_softcapping", None) or getattr(config, "final_logit_softcapping", None):
        raise ModelError(f"config.json: capped logits, which llama.cpp does not run in {family.name}")
    if family.name in ("gemma2", "gemma3", "phi3") and getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
        _refuse_other_pattern(family, config)
    scale = getattr(config, "query_pre_attn_scalar", width)
    if family.name in ("gemma2", "gemma3") and scale not in (width, config.hidden_size // config.num_attention_heads):
        raise ModelError(f"config.json: query_pre_attn_scalar {scale}, which llama.cpp does not run")


def _refuse_other_pattern(family: Family, config: Any) -> None:
    """llama.cpp takes every second layer (Gemma 2) or five of six (Gemma 3) to look back a window only."""
    every = {"gemma2": 2, "gemma3": 6}.get(family.name)
    kinds = getattr(config, "layer_types", None)
    if every is None or kinds is None:
        return
    wanted = [(index + 1) % every != 0 for index in range(len(kinds))]
    if [_LAYER_KINDS.get(kind) for kind in kinds] != wanted:
        raise ModelError(f"config.json: layer_types are not those llama.cpp takes for granted in {family.name}")


def _experts(writer: Any, config: Any) -> None:
    count = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if not count:
        return
    writer.add_expert_count(count)
    writer.add_expert_used_count(config.num_experts_per_tok)
    if width := getattr(config, "moe_intermediate_size", None):
        writer.add_expert_feed_forward_length(width)
    if width := getattr(config, "shared_expert_intermediate_size", None):
        writer.add_expert_shared_feed_forward_length(width)


def _rotary(writer: Any, family: Family, config: Any) -> None:
    import gguf

    parameters = _parameters(config)
    kind = parameters.get("rope_type", "default")
    share = float(parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0) or 1.0))
    writer.add_rope_dimension_count(int(head_width(config) * share))
    writer.add_rope_freq_base(float(parameters["rope_theta"]))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(parameters["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(parameters["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(parameters["original_max_position_embeddings"]))
    elif kind not in ("default", "llama3"):
        raise ModelError(f"config.json: rotary scaling {kind!r}, which qtool does not write as GGUF")
    if family.name == "gemma3":
        local = config.rope_parameters["sliding_attention"]
        if local.get("rope_type", "default") != "default" or float(local["rope_theta"]) != 10_000.0:
            raise ModelError("config.json: sliding layers rotate otherwise than llama.cpp takes for granted in gemma3")


def _parameters(config: Any) -> dict[str, Any]:
    """The rotary settings, those of full attention where kinds of layers differ."""
    found = dict(config.rope_parameters or {})
    return dict(found["full_attention"]) if "full_attention" in found else found
