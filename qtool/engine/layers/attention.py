"""Attention over ragged rows and slot memory, given to transformers models by name: no padding in any linear layer."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from qtool.engine.scheduling.ragged import Block, Step
from qtool.engine.scheduling.slots import LayerShape
from qtool.kernels.cpu import native_attention

NAME = "qtool"


class Memory(Protocol):
    """Where attention puts the keys and values of this step and finds those of earlier ones."""

    def write(self, layer: int, step: Step, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]: ...


_current: contextvars.ContextVar[tuple[Step, Memory]] = contextvars.ContextVar("qtool_step")


class UnsupportedAttention(Exception):
    """The model's attention asks for something this one does not do; another backend must run it."""


def register() -> None:
    """Makes the attention known to transformers as `qtool`; no mask function goes with it, so models build no masks."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)


@contextlib.contextmanager
def during(step: Step, memory: Memory) -> Iterator[None]:
    """Every attention layer called inside belongs to `step`."""
    token = _current.set((step, memory))
    try:
        yield
    finally:
        _current.reset(token)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **unused: object,
) -> tuple[Tensor, None]:
    """Output [1, tokens, heads, width] of query [1, heads, tokens, width] against each row's own keys so far."""
    if position_bias is not None or attention_mask is not None:
        raise UnsupportedAttention("the model adds its own bias or mask to the attention scores")
    step, memory = _current.get()
    if key.shape[2] != step.tokens or value.shape[2] != step.tokens:
        raise UnsupportedAttention(f"the model hands its attention {key.shape[2]} keys for {step.tokens} tokens")
    layer = module.layer_idx
    assert isinstance(layer, int)
    keys, values = memory.write(layer, step, key, value)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    extras = (softcap, s_aux)
    if isinstance(memory, ShapeRecorder):
        memory.looks[layer] = Look(scale, sliding_window, s_aux is None, softcap)
    if step.short and extras == (None, None) and native_attention.fits(query, keys, values):
        where = native_attention.Tokens(step.slots, step.positions)
        return native_attention.attend(query[0], keys, values, where, scale, sliding_window)[None], None
    if len(step.blocks) == 1 and step.blocks[0].gather is None:
        return _one_block(step.blocks[0], query, keys, values, scale, sliding_window, extras)[None], None
    output = query.new_empty(step.tokens, query.shape[1], values.shape[-1])
    for block in step.blocks:
        output[block.tokens] = _one_block(block, query, keys, values, scale, sliding_window, extras)
    return output[None], None


def _one_block(
    block: Block,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    window: int | None,
    extras: tuple[float | None, Tensor | None],
) -> Tensor:
    """Output [tokens, heads, width] of the real queries of one block."""
    if block.width == 1 and extras == (None, None) and native_attention.fits(query, keys, values):
        own = query[0][:, block.tokens]
        return native_attention.attend(own, keys, values, block.singles(), scale, window)
    heads, width = query.shape[1], query.shape[-1]
    kv_heads = keys.shape[1]
    tokens = query[0].transpose(0, 1)
    tokens = tokens[block.tokens] if block.gather is None else tokens[block.gather]
    rows = slice(block.first, block.first + block.size)
    seen_keys = keys[rows, :, : block.length]
    seen_values = values[rows, :, : block.length]
    share = heads // kv_heads
    queries = tokens.reshape(block.size, block.width, kv_heads, share, width).permute(0, 2, 3, 1, 4)
    mask = block.mask(window, query.dtype)
    if share > 1 and mask is not None and block.width > 1:
        mask = mask.repeat(1, 1, share, 1)
    queries = queries.reshape(block.size, kv_heads, share * block.width, width)
    if extras == (None, None):
        result = torch.nn.functional.scaled_dot_product_attention(
            queries, seen_keys, seen_values, attn_mask=mask, scale=scale
        )
    else:
        result = _plain_attention(queries, seen_keys, seen_values, mask, scale, block.width, extras)
    result = result.reshape(block.size, kv_heads, share, block.width, -1).permute(0, 3, 1, 2, 4)
    result = result.reshape(block.size * block.width, heads, -1)
    return result if block.scatter is None else result[block.scatter]


def _plain_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float,
    width: int,
    extras: tuple[float | None, Tensor | None],
) -> Tensor:
    """Attention with capped scores (Gemma 2) or learned sinks (gpt-oss), which the fused operator cannot do."""
    softcap, sinks = extras
    scores = torch.matmul(queries, keys.transpose(2, 3)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    if sinks is None:
        return torch.matmul(torch.softmax(scores, dim=-1, dtype=torch.float32).to(values.dtype), values)
    column = sinks.reshape(1, keys.shape[1], -1, 1).repeat_interleave(width, dim=2).expand(queries.shape[0], -1, -1, -1)
    weights = torch.softmax(torch.cat([scores, column.to(scores.dtype)], dim=-1), dim=-1, dtype=torch.float32)
    return torch.matmul(weights[..., :-1].to(values.dtype), values)


class Look(NamedTuple):
    """How a layer looks at its keys: the factor of its scores, how many keys it sees (None: all), whether nothing but
    a cap is done to the scores, and that cap (None: none)."""

    scale: float
    window: int | None
    plain: bool
    cap: float | None = None


class ShapeRecorder:
    """A memory for one row and one step that only remembers what each layer stores, and how it looks at it."""

    def __init__(self) -> None:
        self.shapes: dict[int, LayerShape] = {}
        self.looks: dict[int, Look] = {}

    def write(self, layer: int, step: Step, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [1, tokens, heads, width] of this very step."""
        self.shapes[layer] = LayerShape(keys.shape[1], keys.shape[-1], values.shape[-1])
        return keys, values
