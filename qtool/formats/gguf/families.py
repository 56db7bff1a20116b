"""Which models llama.cpp knows under which name, and in what its tensors differ from transformers' own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qtool.errors import ModelError


@dataclass(frozen=True, slots=True)
class Family:
    """`name` is the architecture in the file. llama.cpp rotates neighbouring rows of queries and keys where
    `pairs` is set, and keeps norms with one added where `shifted` is; `fixed` are values it takes for granted."""

    name: str
    pairs: bool = False
    shifted: bool = False
    fixed: tuple[tuple[str, object], ...] = ()


_SILU = (("hidden_act", "silu"),)
_TANH = (("hidden_activation", "gelu_pytorch_tanh"),)
FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", pairs=True, fixed=(*_SILU, ("mlp_bias", False))),
    "mistral": Family("llama", pairs=True, fixed=(*_SILU, ("sliding_window", None))),
    "mixtral": Family("llama", pairs=True, fixed=_SILU),
    "qwen2": Family("qwen2", fixed=(*_SILU, ("use_sliding_window", False))),
    "qwen2_moe": Family("qwen2moe", fixed=(*_SILU, ("use_sliding_window", False))),
    "qwen3": Family("qwen3", fixed=(*_SILU, ("use_sliding_window", False), ("attention_bias", False))),
    "qwen3_moe": Family("qwen3moe", fixed=(*_SILU, ("use_sliding_window", False), ("attention_bias", False))),
    "gemma2": Family("gemma2", shifted=True, fixed=(*_TANH, ("attention_bias", False))),
    "gemma3_text": Family("gemma3", shifted=True, fixed=(*_TANH, ("attention_bias", False))),
    "phi3": Family("phi3", fixed=_SILU),
}
_EXPERT_LEAVES = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}


def family_of(config: Any, folder: object) -> Family:
    """The family of a model with this config. Raises ModelError for one that GGUF has no place for."""
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ModelError(f"{folder}: model_type {config.model_type!r} cannot be written as GGUF; qtool writes {known}")
    for key, value in family.fixed:
        if getattr(config, key, value) != value:
            raise ModelError(f"{folder}: config.json: {key} = {getattr(config, key)!r}, which llama.cpp does not run")
    return family


class Names:
    """Names in the file for the names a model gives its tensors."""

    def __init__(self, family: Family, blocks: int) -> None:
        import gguf

        arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.name)
        self._map = gguf.get_tensor_name_map(arch, blocks)

    def of(self, name: str) -> str:
        """The file's name for tensor `name`. Raises ModelError for one llama.cpp has no place for."""
        found = self._map.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"tensor {name!r} has no place in GGUF's {type(self).__name__.lower()} for this model")
        return str(found)

    @staticmethod
    def of_experts(block: int, leaf: str) -> str:
        """The file's name for one matrix of all experts of a block, stacked."""
        return f"blk.{block}.{_EXPERT_LEAVES[leaf]}.weight"


def row_order(family: Family, name: str, config: Any) -> Tensor | None:
    """Which row of tensor `name` comes where in the file: int64 [rows], or None where they stay in order."""
    if not family.pairs:
        return None
    layer = name.rpartition(".")[0].rpartition(".")[2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(layer)
    if heads is None:
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rows = torch.arange(heads * width)
    return rows.view(heads, 2, width // 2).transpose(1, 2).reshape(-1)


def vector(family: Family, name: str, values: Tensor) -> Tensor:
    """A norm's weight or a bias as the file keeps it, float32."""
    numbers = values.float()
    return numbers + 1 if family.shifted and name.endswith("norm.weight") else numbers
