"""A step of a whole decoder in one call: `native_decoder.cpp` and how its structures are filled."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qtool.kernels.cpu.native_attention import Tokens
from qtool.kernels.cpu.native_build import native
from qtool.kernels.cpu.native_cpu import NativeKernel
from qtool.kernels.cpu.native_structures import Decoder, Layer, Linear, Norm, Step


class Joined(NamedTuple):
    """Products with the same input, whose results lie side by side; each with its bias [rows] or None."""

    parts: tuple[tuple[NativeKernel, Tensor | None], ...]


class NormWeights(NamedTuple):
    """RMS norm, or LayerNorm where `centred`: factors [size] in float32, and what is added to them or None."""

    weight: Tensor
    bias: Tensor | None
    epsilon: float
    centred: bool


class LayerWeights(NamedTuple):
    """One decoder layer. Keys and values are [slots, kv heads, context, width]. A norm that is None does nothing;
    `gate_up` has no gate where `gated` is false; `rotary` is which angles its heads are rotated by, None: none."""

    input_norm: NormWeights | None
    middle_norm: NormWeights | None
    attention_norm: NormWeights | None  # of what attention adds to the state
    feed_forward_norm: NormWeights | None  # of what the feed-forward part adds
    query_norm: NormWeights | None
    key_norm: NormWeights | None
    attention: Joined
    output: Joined
    gate_up: Joined
    down: Joined
    keys: Tensor
    values: Tensor
    scale: float
    window: int | None
    cap: float | None
    gated: bool
    activation: str
    rotary: int | None


class DecoderShape(NamedTuple):
    """Sizes all layers share."""

    hidden: int
    heads: int
    kv_heads: int
    width: int
    inner: int


ACTIVATIONS = ("silu", "gelu tanh", "gelu", "relu", "relu squared")  # in the order of native_decoder.cpp


class NativeDecoder:
    """Layers, last norm and head as one call. `product_seconds` adds up the time inside products."""

    def __init__(
        self,
        shape: DecoderShape,
        layers: Sequence[LayerWeights],
        norm: NormWeights,
        head: tuple[NativeKernel, Tensor | None],
    ) -> None:
        self._library: Any = native().library
        assert self._library is not None, "callers ask native_cpu.refusal first"
        self._held = (tuple(layers), norm, head)  # what the structures point to
        self._layers = (Layer * len(layers))(*(_layer(layer) for layer in layers))
        self._decoder = Decoder(
            ctypes.addressof(self._layers), len(layers), *shape, layers[0].keys.shape[2], _norm(norm), _linear(*head),
            1, layers[0].keys.dtype is torch.bfloat16,
        )  # fmt: skip
        self._vocabulary = head[0].product.rows
        self._room = torch.empty(0)
        self.product_seconds = 0.0

    def step(self, state: Tensor, rotation: tuple[Tensor, Tensor], tokens: Tokens) -> Tensor:
        """Logits [tokens, vocabulary] of embedded tokens [tokens, hidden], which are overwritten; their keys and values
        are stored. `rotation` is cos and sin [rotaries, tokens, how many numbers of a head are rotated]."""
        count = len(state)
        needed = self._library.qtool_decoder_room(ctypes.byref(self._decoder), count)
        if self._room.numel() < needed:
            self._room = torch.empty(needed)
        logits = torch.empty(count, self._vocabulary)
        cos, sin = (angles.contiguous() for angles in rotation)
        self._decoder.threads = torch.get_num_threads()
        step = Step(
            state.data_ptr(), cos.data_ptr(), sin.data_ptr(), cos.shape[-1],
            tokens.slots.data_ptr(), tokens.positions.data_ptr(), count, logits.data_ptr(), self._room.data_ptr(), 0.0,
        )  # fmt: skip
        self._library.qtool_decode(ctypes.byref(self._decoder), ctypes.byref(step))
        self.product_seconds += step.product_seconds
        return logits


def _layer(weights: LayerWeights) -> Layer:
    layer = Layer(
        input=_norm(weights.input_norm),
        middle=_norm(weights.middle_norm),
        after_attention=_norm(weights.attention_norm),
        after_feed_forward=_norm(weights.feed_forward_norm),
        query=_norm(weights.query_norm),
        key=_norm(weights.key_norm),
        output=_linear(*weights.output.parts[0]),
        down=_linear(*weights.down.parts[0]),
        keys=weights.keys.data_ptr(),
        values=weights.values.data_ptr(),
        window=weights.window or 0,
        scale=weights.scale,
        cap=weights.cap or 0.0,
        attention_parts=len(weights.attention.parts),
        gate_up_parts=len(weights.gate_up.parts),
        gated=weights.gated,
        activation=ACTIVATIONS.index(weights.activation),
        rotary=-1 if weights.rotary is None else weights.rotary,
    )
    for index, part in enumerate(weights.attention.parts):
        layer.attention[index] = _linear(*part)
    for index, part in enumerate(weights.gate_up.parts):
        layer.gate_up[index] = _linear(*part)
    return layer


def _norm(norm: NormWeights | None) -> Norm:
    if norm is None:
        return Norm()
    return Norm(norm.weight.data_ptr(), _address(norm.bias), norm.epsilon, norm.centred)


def _linear(kernel: NativeKernel, bias: Tensor | None) -> Linear:
    return Linear(kernel.product, kernel.kind, kernel.step, _address(bias))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
