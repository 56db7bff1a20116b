"""Attention of single tokens over slot memory by the compiled product: no masks, no padding, same bits in any batch."""

import ctypes
import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qtool.kernels import native_cpu
from qtool.kernels.native_build import native


class _Attention(ctypes.Structure):
    _fields_ = (
        ("query", ctypes.c_void_p),
        ("query_token", ctypes.c_int64),
        ("query_head", ctypes.c_int64),
        ("keys", ctypes.c_void_p),
        ("key_slot", ctypes.c_int64),
        ("key_head", ctypes.c_int64),
        ("key_position", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("value_slot", ctypes.c_int64),
        ("value_head", ctypes.c_int64),
        ("value_position", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("value_width", ctypes.c_int64),
        ("window", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("threads", ctypes.c_int32),
        ("output", ctypes.c_void_p),
    )


class Tokens(NamedTuple):
    """Where single tokens look: the slot and the position of each, int64 [tokens]."""

    slots: Tensor
    positions: Tensor


def fits(query: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether these may be given to `attend`: float32 on a CPU, widths of whole vectors."""
    whole = query.shape[-1] % 8 == 0 and values.shape[-1] % 8 == 0
    plain = query.dtype is keys.dtype is values.dtype is torch.float32 and query.device.type == "cpu"
    return whole and plain and not native_cpu.refusal()


def attend(query: Tensor, keys: Tensor, values: Tensor, tokens: Tokens, scale: float, window: int | None) -> Tensor:
    """Output [tokens, heads, value width] of query [heads, tokens, width] over keys and values [slot, kv head,
    position, width]; a token sees its slot up to its position, of these the last `window`."""
    query = query if query.stride(-1) == 1 else query.contiguous()
    heads, count, width = query.shape
    output = torch.empty(count, heads, values.shape[-1])
    call = _Attention(
        query.data_ptr(), query.stride(1), query.stride(0),
        keys.data_ptr(), keys.stride(0), keys.stride(1), keys.stride(2),
        values.data_ptr(), values.stride(0), values.stride(1), values.stride(2),
        tokens.slots.data_ptr(), tokens.positions.data_ptr(),
        count, heads, keys.shape[1], width, values.shape[-1], window or 0,
        scale, torch.get_num_threads(), output.data_ptr(),
    )  # fmt: skip
    _library().qtool_attend(ctypes.byref(call))
    return output


def store(given: Tensor, memory: Tensor, tokens: Tokens) -> None:
    """Writes given [heads, tokens, width] to memory [slot, heads, position, width] where `tokens` says."""
    given = given if given.stride(-1) == 1 else given.contiguous()
    heads, count, width = given.shape
    _library().qtool_store(
        given.data_ptr(), given.stride(1), given.stride(0),
        memory.data_ptr(), memory.stride(0), memory.stride(1), memory.stride(2),
        tokens.slots.data_ptr(), tokens.positions.data_ptr(), count, heads, width,
    )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    library: Any = native().library
    assert library is not None, "callers ask `fits` first"
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.qtool_attend.argtypes = [pointer]
    library.qtool_attend.restype = None
    library.qtool_store.argtypes = [
        pointer, number, number, pointer, number, number, number, pointer, pointer, number, number, number
    ]  # fmt: skip
    library.qtool_store.restype = None
    return library
