"""Attention of single tokens over slot memory by the compiled product: no masks, no padding, same bits in any batch."""

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qtool.kernels.cpu import native_cpu
from qtool.kernels.cpu.native_build import native
from qtool.kernels.cpu.native_structures import Attention

_TYPES = {torch.float32, torch.bfloat16}


class Tokens(NamedTuple):
    """Where single tokens look: the slot and the position of each, int64 [tokens]."""

    slots: Tensor
    positions: Tensor


def fits(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether these may be given to `attend`: float32 or bfloat16 on a CPU, widths of whole vectors."""
    whole = query.shape[-1] % 8 == 0 and values.shape[-1] % 8 == 0
    plain = keys.dtype is values.dtype and {query.dtype, keys.dtype} <= _TYPES and query.device.type == "cpu"
    return whole and plain and not native_cpu.refusal()


def attend(query: Tensor, keys: Tensor, values: Tensor, tokens: Tokens, scale: float, window: int | None) -> Tensor:
    """Output [tokens, heads, value width] of query [heads, tokens, width] over keys and values [slot, kv head,
    position, width]; a token sees its slot up to its position, of these the last `window`."""
    wide = _wide(query)
    heads, count, width = wide.shape
    output = torch.empty(count, heads, values.shape[-1])
    call = Attention(
        wide.data_ptr(), wide.stride(1), wide.stride(0),
        keys.data_ptr(), keys.stride(0), keys.stride(1), keys.stride(2),
        values.data_ptr(), values.stride(0), values.stride(1), values.stride(2),
        tokens.slots.data_ptr(), tokens.positions.data_ptr(),
        count, heads, keys.shape[1], width, values.shape[-1], window or 0,
        scale, 0.0, torch.get_num_threads(), keys.dtype is torch.bfloat16, output.data_ptr(),
    )  # fmt: skip
    _library().qtool_attend(ctypes.byref(call))
    return output.to(query.dtype)


def store(given: Tensor, memory: Tensor, tokens: Tokens) -> None:
    """Writes given [heads, tokens, width] to memory [slot, heads, position, width] where `tokens` says."""
    wide = _wide(given)
    heads, count, width = wide.shape
    _library().qtool_store(
        wide.data_ptr(), wide.stride(1), wide.stride(0), memory.data_ptr(), (ctypes.c_int64 * 3)(*memory.stride()[:3]),
        tokens.slots.data_ptr(), tokens.positions.data_ptr(), count, heads, width, memory.dtype is torch.bfloat16,
    )  # fmt: skip


def _wide(numbers: Tensor) -> Tensor:
    wide = numbers.float()
    return wide if wide.stride(-1) == 1 else wide.contiguous()


def _library() -> Any:
    library: Any = native().library
    assert library is not None, "callers ask `fits` first"
    return library
