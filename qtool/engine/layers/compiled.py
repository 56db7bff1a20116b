"""Decoding on a CPU in one compiled call a step, for models whose blocks are what `native_decoder.cpp` can do."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from qtool.engine.layers.decoder_blocks import (
    Norms,
    NotCompiled,
    activation_of,
    attention_of,
    attention_products,
    feed_forward_of,
    feed_forward_products,
    head_product,
    last_norm,
    norm_of_heads,
    stack_of,
)
from qtool.engine.layers.network import Network
from qtool.engine.layers.own_spread import distance
from qtool.engine.scheduling.ragged import Row, plan_step
from qtool.engine.scheduling.slots import KeyValueSlots
from qtool.kernels.cpu import native_cpu
from qtool.kernels.cpu.native_attention import Tokens
from qtool.kernels.cpu.native_decoder import DecoderShape, LayerWeights, NativeDecoder

_TYPES = (torch.float32, torch.bfloat16)
_VECTOR = 8
_FACTORS = ("residual_multiplier", "embedding_multiplier", "logits_scaling", "logit_scale", "clip_qkv")
_CHECK_TOKENS = 7


class CompiledDecoder:
    """Rows of one token through the whole model. Raises NotCompiled where the model cannot run this way.

    Numbers between the products are float32, also in a bfloat16 model: what its own forward rounds is not rounded here.
    """

    def __init__(self, network: Network, memory: KeyValueSlots) -> None:
        if network.device.type != "cpu" or network.dtype not in _TYPES:
            raise NotCompiled("the model does not compute in float32 or bfloat16 on a CPU")
        if native_cpu.refusal():
            raise NotCompiled(native_cpu.refusal())
        model, config = network.model, network.config
        _refuse_factors(config)
        stack, blocks = stack_of(model, config.num_hidden_layers)
        self._embed, self._places = model.get_input_embeddings(), getattr(stack, "wpe", None)
        self._rotate = getattr(stack, "rotary_emb", None)
        self._kinds = _kinds_of_angles(self._rotate, network)
        self._cap = getattr(config, "final_logit_softcapping", None)
        layers = [
            _layer(network, memory, index, block, self._rotary(network, index, block))
            for index, block in enumerate(blocks)
        ]
        shape = _shape(network, layers[0])
        self.decoder = NativeDecoder(shape, layers, last_norm(stack), head_product(model))
        self._check(network, memory)

    @torch.inference_mode()
    def decode(self, rows: Sequence[Row], tokens: Sequence[int]) -> Tensor:
        """Logits [rows, vocabulary] of one token a row, float32."""
        where = torch.tensor([[row.slot for row in rows], [row.start for row in rows]])
        state = self._embed(torch.tensor(tokens)).float()
        if self._places is not None:
            state = state + self._places(where[1]).float()
        logits = self.decoder.step(state.contiguous(), self._rotation(where[1]), Tokens(where[0], where[1]))
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [kinds of angles, tokens, rotated], float32."""
        if self._rotate is None:
            nothing = torch.empty(0, len(positions), 0)
            return nothing, nothing
        like = torch.empty(0)
        pairs = [self._rotate(like, positions[None], *kind) for kind in self._kinds]
        return torch.cat([cos for cos, _ in pairs]), torch.cat([sin for _, sin in pairs])

    def _rotary(self, network: Network, index: int, block: torch.nn.Module) -> int | None:
        """Which kind of angles a layer's heads are rotated by."""
        attention = attention_of(block)
        everywhere = getattr(attention, "sliding_window", None) is None or getattr(attention, "is_sliding", True)
        if self._rotate is None or not getattr(attention, "use_rope", everywhere):
            return None
        return self._kinds.index((network.config.layer_types[index],)) if self._kinds[0] else 0

    def _check(self, network: Network, memory: KeyValueSlots) -> None:
        """A few tokens one by one must give what the model gives; the slots they used are clean afterwards."""
        count = min(_CHECK_TOKENS, memory.context)
        ids = network.probe[:count]
        step = plan_step([Row(0, 0, count)], network.device)
        expected = network.forward(ids, step, memory, torch.arange(count)).float()
        memory.clear(0, count)
        logits = torch.cat([self.decode([Row(0, place, 1)], [int(ids[place])]) for place in range(count)])
        memory.clear(0, count)
        error = distance(logits, expected)
        if not network.tolerates(error):
            raise NotCompiled(f"its logits are {error:.1%} off the model's own")


def compiled_decoder(network: Network, memory: KeyValueSlots) -> CompiledDecoder | NotCompiled:
    """The decoder, or why steps must go through the model's own forward."""
    try:
        return CompiledDecoder(network, memory)
    except NotCompiled as reason:
        return reason


def _refuse_factors(config: Any) -> None:
    """A factor near 1 could hide in the rounding that the comparison of logits allows."""
    for name in _FACTORS:
        value = getattr(config, name, None)
        if value is not None and value != 1:
            raise NotCompiled(f"its {name} is {value}")


def _kinds_of_angles(rotate: torch.nn.Module | None, network: Network) -> list[tuple[str, ...]]:
    """What the rotary module is asked for besides positions: nothing, or each type of layer in turn (Gemma 3)."""
    if rotate is None or "layer_type" not in inspect.signature(rotate.forward).parameters:
        return [()]
    return [(kind,) for kind in sorted(set(network.config.layer_types))]


def _shape(network: Network, layer: LayerWeights) -> DecoderShape:
    shapes, heads = network.shapes, network.config.num_attention_heads
    width = shapes[0].key_width
    inner = layer.down.parts[0][0].product.columns
    shape = DecoderShape(layer.output.parts[0][0].product.rows, heads, shapes[0].heads, width, inner)
    if any(size % _VECTOR for size in (shape.hidden, shape.width, shape.inner)):
        raise NotCompiled("its widths are not whole vectors")
    if any(found != shapes[0] or found.value_width != width for found in shapes.values()):
        raise NotCompiled("its layers remember keys and values of different widths")
    return shape


def _layer(
    network: Network, memory: KeyValueSlots, index: int, block: torch.nn.Module, rotary: int | None
) -> LayerWeights:
    look, norms = network.looks[index], Norms(block)
    attention, mlp, width = attention_of(block), feed_forward_of(block), network.shapes[index].key_width
    if not look.plain:
        raise NotCompiled("its attention does more than weigh values")
    keys, values = memory.layer(index)
    queries, output = attention_products(network.model, attention)
    gate_up, down, gated = feed_forward_products(network.model, mlp)
    return LayerWeights(
        input_norm=norms.input,
        middle_norm=norms.middle,
        attention_norm=norms.after_attention,
        feed_forward_norm=norms.after_feed_forward,
        query_norm=norm_of_heads(attention, ("q_norm", "q_layernorm"), width),
        key_norm=norm_of_heads(attention, ("k_norm", "k_layernorm"), width),
        attention=queries,
        output=output,
        gate_up=gate_up,
        down=down,
        keys=keys,
        values=values,
        scale=look.scale,
        window=look.window,
        cap=look.cap,
        gated=gated,
        activation=activation_of(mlp),
        rotary=rotary,
    )
