"""A transformers model through its own forward: with its own attention, and token by token behind its own cache."""

import inspect
from typing import Any

from torch import Tensor

_CACHE_NAMES = ("cache", "past_key_values", "cache_params")  # from transformers 5.24 on, before it, recurrent models


def use_attention(model: Any, name: str) -> None:
    """Makes every attention of `model` the one that transformers knows as `name`."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = name


def whole_pass(model: Any, ids: Tensor) -> Tensor:
    """Logits [rows, tokens, vocabulary] of one pass over ids [rows, tokens]."""
    logits: Tensor = model(input_ids=ids, use_cache=False, return_dict=True).logits
    return logits


def feed(model: Any, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Logits of ids [rows, tokens] behind `cache` (None: nothing yet), and the cache that then holds them too."""
    parameters = inspect.signature(model.forward).parameters
    name = next((name for name in _CACHE_NAMES if name in parameters), _CACHE_NAMES[1])
    output = model(input_ids=ids, use_cache=True, return_dict=True, **{name: cache})
    return output.logits, output[name]
