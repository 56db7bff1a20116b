"""llama.cpp on the same weights: written as GGUF, driven through its own batch interface."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_PLAIN = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(base: Path, kind: str) -> Path:
    """The Llama of `base` with every layer's matrices as `kind` (Q4_0, Q8_0); written once.

    Embedding and output matrix stay 16-bit (F16, which llama.cpp multiplies faster than BF16), as in our variants.
    """
    import gguf
    from safetensors import safe_open
    from transformers import AutoConfig

    target = base.parent / f"{kind}.gguf"
    if target.is_file():
        return target
    config = AutoConfig.from_pretrained(base)
    writer = gguf.GGUFWriter(str(target.with_suffix(".part")), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    quantized, half = gguf.GGMLQuantizationType[kind], gguf.GGMLQuantizationType.F16
    for path in sorted(base.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                tensor = _rotary_order(name, file.get_tensor(name).float(), config)
                if tensor.ndim == 1:
                    writer.add_tensor(_name(name), tensor.numpy())
                    continue
                form = half if name.startswith(("model.embed_tokens", "lm_head")) else quantized
                writer.add_tensor(_name(name), gguf.quantize(tensor.numpy(), form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target.with_suffix(".part").rename(target)
    return target


def _name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _PLAIN:
        return f"{_PLAIN[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_NAMES[rest]}.weight"


def _rotary_order(name: str, weight: Tensor, config: Any) -> Tensor:
    """llama.cpp rotates neighbours where transformers rotates halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, count in heads.items():
        if f"{part}.weight" in name:
            return weight.view(count, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape).contiguous()
    return weight


class LlamaCpp:
    """A loaded GGUF: greedy answers for up to eight prompts at once, each its own sequence of one batch."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self._api = llama_cpp
        llama_cpp.llama_backend_init()
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model)
        assert self._model, f"llama.cpp could not load {path}"
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max = 8 * 256, 2048, 512, 8
        context.n_threads = context.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        self._batch = llama_cpp.llama_batch_init(2048, 0, 1)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def answer(self, prompts: list[tuple[int, ...]], tokens: int) -> None:
        """Decodes `tokens` tokens for each prompt."""
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        fed = [(token, position, row) for row, ids in enumerate(prompts) for position, token in enumerate(ids)]
        last = {sum(len(ids) for ids in prompts[: row + 1]) - 1 for row in range(len(prompts))}
        chosen = self._decode(fed, last)
        for step in range(1, tokens):
            position = len(prompts[0]) + step - 1
            chosen = self._decode(
                [(token, position, row) for row, token in enumerate(chosen)], set(range(len(prompts)))
            )

    def _decode(self, fed: list[tuple[int, int, int]], wanted: set[int]) -> list[int]:
        api, batch = self._api, self._batch
        batch.n_tokens = len(fed)
        for index, (token, position, row) in enumerate(fed):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, row
            batch.logits[index] = index in wanted
        failed = api.llama_decode(self._context, batch)
        assert failed == 0, f"llama_decode gave {failed}"
        logits = (api.llama_get_logits_ith(self._context, index) for index in sorted(wanted))
        return [
            int(torch.frombuffer(ctypes.cast(row, ctypes.POINTER(ctypes.c_float * self._vocabulary)).contents,
                                 dtype=torch.float32).argmax())
            for row in logits
        ]  # fmt: skip
