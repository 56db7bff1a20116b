"""A step of a whole Llama-shaped decoder in one call: `native_decoder.cpp` and how its structures are filled."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qtool.kernels.native_attention import Tokens
from qtool.kernels.native_build import native
from qtool.kernels.native_cpu import NativeKernel, Product

_MOST_PARTS = 3


class Joined(NamedTuple):
    """Products with the same input, whose results lie side by side; each with its bias [rows] or None."""

    parts: tuple[tuple[NativeKernel, Tensor | None], ...]


class LayerWeights(NamedTuple):
    """One decoder layer. Keys and values are [slots, kv heads, context, width]; norms are factors in float32."""

    input_norm: Tensor
    middle_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None
    attention: Joined
    output: Joined
    gate_up: Joined
    down: Joined
    keys: Tensor
    values: Tensor
    scale: float
    window: int | None


class DecoderShape(NamedTuple):
    """Sizes all layers share, and the epsilon of their norms."""

    hidden: int
    heads: int
    kv_heads: int
    width: int
    inner: int
    epsilon: float


class _Linear(ctypes.Structure):
    _fields_ = (
        ("product", Product),
        ("kind", ctypes.c_int32),
        ("step", ctypes.c_int32),
        ("bias", ctypes.c_void_p),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("middle_norm", ctypes.c_void_p),
        ("query_norm", ctypes.c_void_p),
        ("key_norm", ctypes.c_void_p),
        ("attention", _Linear * _MOST_PARTS),
        ("gate_up", _Linear * 2),
        ("output", _Linear),
        ("down", _Linear),
        ("keys", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("window", ctypes.c_int64),
        ("scale", ctypes.c_float),
        ("attention_parts", ctypes.c_int32),
        ("gate_up_parts", ctypes.c_int32),
    )


class _Decoder(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.c_void_p),
        ("layer_count", ctypes.c_int64),
        ("hidden", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("context", ctypes.c_int64),
        ("norm", ctypes.c_void_p),
        ("head", _Linear),
        ("epsilon", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("state", ctypes.c_void_p),
        ("cos", ctypes.c_void_p),
        ("sin", ctypes.c_void_p),
        ("rotated", ctypes.c_int64),
        ("slots", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("tokens", ctypes.c_int64),
        ("logits", ctypes.c_void_p),
        ("room", ctypes.c_void_p),
        ("product_seconds", ctypes.c_double),
    )


class NativeDecoder:
    """Layers, last norm and head as one call. `product_seconds` adds up the time inside products."""

    def __init__(self, shape: DecoderShape, layers: Sequence[LayerWeights], norm: Tensor, head: NativeKernel) -> None:
        self._library = _library()
        self._held = (tuple(layers), norm, head)  # what the structures point to
        self._layers = (_Layer * len(layers))(*(_layer(layer) for layer in layers))
        self._decoder = _Decoder(
            ctypes.addressof(self._layers), len(layers), shape.hidden, shape.heads, shape.kv_heads, shape.width,
            shape.inner, layers[0].keys.shape[2], norm.data_ptr(), _linear(head, None), shape.epsilon, 1,
        )  # fmt: skip
        self._vocabulary = head.product.rows
        self._room = torch.empty(0)
        self.product_seconds = 0.0

    def step(self, state: Tensor, rotation: tuple[Tensor, Tensor], tokens: Tokens) -> Tensor:
        """Logits [tokens, vocabulary] of embedded tokens [tokens, hidden], which are overwritten; their keys and values
        are stored. `rotation` is cos and sin [tokens, how many numbers of a head are rotated]."""
        count = len(state)
        needed = self._library.qtool_decoder_room(ctypes.byref(self._decoder), count)
        if self._room.numel() < needed:
            self._room = torch.empty(needed)
        logits = torch.empty(count, self._vocabulary)
        cos, sin = (angles.contiguous() for angles in rotation)
        self._decoder.threads = torch.get_num_threads()
        step = _Step(
            state.data_ptr(), cos.data_ptr(), sin.data_ptr(), cos.shape[-1],
            tokens.slots.data_ptr(), tokens.positions.data_ptr(), count, logits.data_ptr(), self._room.data_ptr(), 0.0,
        )  # fmt: skip
        self._library.qtool_decode(ctypes.byref(self._decoder), ctypes.byref(step))
        self.product_seconds += step.product_seconds
        return logits


def _layer(weights: LayerWeights) -> _Layer:
    layer = _Layer(
        input_norm=weights.input_norm.data_ptr(),
        middle_norm=weights.middle_norm.data_ptr(),
        query_norm=_address(weights.query_norm),
        key_norm=_address(weights.key_norm),
        output=_linear(*weights.output.parts[0]),
        down=_linear(*weights.down.parts[0]),
        keys=weights.keys.data_ptr(),
        values=weights.values.data_ptr(),
        window=weights.window or 0,
        scale=weights.scale,
        attention_parts=len(weights.attention.parts),
        gate_up_parts=len(weights.gate_up.parts),
    )
    for index, part in enumerate(weights.attention.parts):
        layer.attention[index] = _linear(*part)
    for index, part in enumerate(weights.gate_up.parts):
        layer.gate_up[index] = _linear(*part)
    return layer


def _linear(kernel: NativeKernel, bias: Tensor | None) -> _Linear:
    return _Linear(kernel.product, kernel.kind, kernel.step, _address(bias))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    library: Any = native().library
    assert library is not None, "callers ask native_cpu.refusal first"
    library.qtool_decoder_room.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    library.qtool_decoder_room.restype = ctypes.c_int64
    library.qtool_decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.qtool_decode.restype = None
    return library
