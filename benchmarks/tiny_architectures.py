"""Every type of transformers' MODEL_FOR_CAUSAL_LM_MAPPING as a tiny random model on disk, with a byte tokenizer.

Settings are made small by what they are called, wherever they stand in a configuration; what a type cannot be built
with is told by the exception that transformers raises.
"""

import copy
from pathlib import Path
from typing import Any

import torch

SEED = 0
VOCABULARY = 512
_MOST_PARAMETERS = 30e6

_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "hidden_dim", "model_dim", "embed_dim"), 64),
    **dict.fromkeys(("dim_model", "emb_dim", "word_embed_proj_dim", "embedding_size", "text_config_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner", "d_ff"), 128),
    **dict.fromkeys(("dim_ff", "feed_forward_size", "ffn_hidden_size", "intermediate_size_mlp", "d_inner"), 128),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers", "layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "attention_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "attention_head_dim", "kv_channels", "v_head_dim", "qk_nope_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "index_head_dim", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("global_head_dim", "swa_head_dim", "rotary_dim", "rope_head_dim", "state_size_per_head"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank", "lora_rank"), 32),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(
        ("moe_shared_expert_intermediate_size", "shared_intermediate_size", "expert_intermediate_size"), 32
    ),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts", "n_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_groups"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), 256),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "sliding_window", "attention_window_size"), 256),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "ssm_cfg_d_state", "mamba_state_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "linear_num_value_heads", "num_v_heads"), 4),
    **dict.fromkeys(("linear_num_key_heads", "mamba_n_groups", "n_groups", "index_n_heads"), 2),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "head_k_dim", "head_v_dim"), 32),
    **dict.fromkeys(("mamba_d_ssm", "lru_width", "attention_hidden_size"), 128),
    **dict.fromkeys(("hidden_size_per_layer_input", "time_step_rank", "mamba_dt_rank"), 16),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "decoder_vocab_size"), VOCABULARY),
    **dict.fromkeys(("first_k_dense_replace", "moe_layer_start_index", "num_kv_shared_layers"), 0),
    **dict.fromkeys(("index_topk",), 64),
    "chunk_size": 32,
    "mamba_chunk_size": 32,
    "image_size": 28,
    "patch_size": 14,
}
_OF_TOKENIZER = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "decoder_start_token_id": 0}
_BY_TYPE: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1},
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 32, "attn_layer_indices": [1], "mamba_n_groups": 1},
    "falcon_h1": {"mamba_n_heads": 4, "mamba_d_head": 32, "mamba_d_ssm": 128, "mamba_n_groups": 1},
    "falcon": {"num_kv_heads": 4},
    "reformer": {
        "attn_layers": ["local", "local"], "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [32, 32],
        "is_decoder": True,
    },
    "phi3": {"partial_rotary_factor": 1.0},
    "openai-gpt": {"afn": "gelu"},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16},
    "xlnet": {"d_head": 16},
    "zaya": {"num_experts_per_tok": 1},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "zamba": {"num_hidden_layers": 6, "attn_layer_offset": 1, "attn_layer_period": 2},
    "granitemoehybrid": {
        "mamba_n_heads": 4, "mamba_d_head": 32, "mamba_n_groups": 1,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots1": {"num_experts_per_tok": 2, "n_routed_experts": 4, "first_k_dense_replace": 1},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0}},
    "longcat_flash": {"qk_head_dim": 32},
    "dory": {"num_hidden_layers": 3, "n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1},
    "inkling2_text": {"unpadded_vocab_size": 512},
    "inkling2_loop_text": {"unpadded_vocab_size": 512},
}  # fmt: skip
_DECODERS = {"is_decoder": True}


def model_types() -> tuple[str, ...]:
    """Every type that transformers can build a causal language model of, in alphabetical order."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))


def make(model_type: str, folder: Path) -> Path:
    """A tiny random model of `model_type` in `folder`, as save_pretrained writes it, with a tokenizer."""
    model = _running(model_type)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and not parameter.isfinite().all():
                parameter.normal_(std=0.02)
            if parameter.ndim >= 2 and float(parameter.std()) == 0.0:
                parameter.normal_(std=0.02)  # experts and tables that transformers leaves at zero
            if parameter.ndim == 2 and "norm" not in name:
                parameter.mul_(3.0)  # wide enough that logits differ from token to token
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _running(model_type: str) -> Any:
    """A model of the type that transformers itself can run: with as many keys as queries where fewer do not fit."""
    from transformers import AutoModelForCausalLM

    for changes in ({}, {"num_key_value_heads": 4}):
        config = tiny_config(model_type, **changes)
        with torch.device("meta"):
            size = sum(one.numel() for one in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
        if size > _MOST_PARAMETERS:
            raise ValueError(f"{size / 1e6:.0f} million parameters, too many to be built small")
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        try:
            with torch.inference_mode():
                model(torch.arange(3, 12)[None])
        except RuntimeError:
            if changes:
                raise
            continue
        break
    return model


def tiny_config(model_type: str, **changes: Any) -> Any:
    """The configuration of `model_type` with everything small, and `changes`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    default = kind()
    own = _BY_TYPE.get(model_type, {})
    settings = _shrunk(default, kind.sub_configs or {})
    if getattr(default, "is_decoder", None) is False:
        settings |= _DECODERS
    settings |= {**own, **{name: value for name, value in changes.items() if name in settings}}
    config = kind(**settings)
    config.use_cache = True
    return config


def _shrunk(config: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Settings for a smaller configuration: known names small, lists of layers cut to the first and a later kind."""
    layers = next((getattr(config, name) for name in _LAYER_COUNTS if isinstance(getattr(config, name, None), int)), 0)
    settings: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        own = config.__dict__.get(name, value)
        if name in parts or hasattr(own, "to_dict"):
            if own is not None and hasattr(own, "to_dict"):
                settings[name] = _shrunk(own, getattr(type(own), "sub_configs", None) or {})
        elif name in _OF_TOKENIZER:
            settings[name] = _OF_TOKENIZER[name]
        elif name == "per_layer_config" and value:
            settings["global_head_dim"] = _SMALL["head_dim"]  # what those of Gemma 4 are made of
        elif name in _SMALL and value is not None and not isinstance(value, list | dict):
            settings[name] = _SMALL[name]
        elif isinstance(value, list) and layers > 2 and len(value) == layers:
            settings[name] = _two(value)
        elif isinstance(value, list | dict) and name not in _LEFT_OUT:
            settings[name] = copy.deepcopy(value)
        elif name not in _LEFT_OUT and isinstance(value, bool | int | float | str):
            settings[name] = value
    return settings


_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers")
_LEFT_OUT = frozenset(
    {"transformers_version", "model_type", "architectures", "dtype", "torch_dtype", "rope_parameters", "id2label"}
    | {
        "label2id",
        "rope_scaling",
        "quantization_config",
        "per_layer_config",
        "_name_or_path",
        "tie_encoder_decoder",
        "partial_rotary_factor",
    }
)


def _two(kinds: list[Any]) -> list[Any]:
    other = next((kind for kind in kinds if kind != kinds[0]), kinds[0])
    return [kinds[0], other]


def _tokenizer() -> Any:
    """A byte-level tokenizer: <s>, </s>, <unk> and the 256 bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<s>", "</s>", "<unk>", *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
