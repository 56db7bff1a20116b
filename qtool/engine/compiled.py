"""Decoding on a CPU in one compiled call a step, for models shaped like Llama whose every product is compiled."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qtool.engine.network import Network
from qtool.engine.own_spread import distance
from qtool.engine.ragged import Row, plan_step
from qtool.engine.slots import KeyValueSlots
from qtool.kernels import native_cpu
from qtool.kernels.dense import DenseKernel
from qtool.kernels.fused import FusedLinear
from qtool.kernels.linear import KernelLinear
from qtool.kernels.native_attention import Tokens
from qtool.kernels.native_cpu import NativeKernel
from qtool.kernels.native_decoder import DecoderShape, Joined, LayerWeights, NativeDecoder

# decoders whose layers are: norm, attention with rotated halves, norm, down(silu(gate) * up); nothing else
_SHAPED_LIKE_LLAMA = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Phi3ForCausalLM",
)
_VECTOR = 8
_CHECK_TOKENS = 7


class NotCompiled(Exception):
    """Why a model's steps are not one compiled call."""


class CompiledDecoder:
    """Rows of one token through the whole model. Raises NotCompiled where the model cannot run this way."""

    def __init__(self, network: Network, memory: KeyValueSlots) -> None:
        if network.device.type != "cpu" or network.dtype is not torch.float32:
            raise NotCompiled("the model does not compute in float32 on a CPU")
        if native_cpu.refusal():
            raise NotCompiled(native_cpu.refusal())
        model = network.model
        if type(model).__name__ not in _SHAPED_LIKE_LLAMA or not type(model).__module__.startswith("transformers."):
            raise NotCompiled(f"{type(model).__name__} is not known to be shaped like Llama")
        self._embed, self._rotate = model.get_input_embeddings(), model.model.rotary_emb
        layers = [_layer(network, memory, index, layer) for index, layer in enumerate(model.model.layers)]
        head = _kernel(model.get_output_embeddings())
        if head[1] is not None:
            raise NotCompiled("its output head has a bias")
        self.decoder = NativeDecoder(_shape(network), layers, _vector(model.model.norm.weight), head[0])
        self._check(network, memory)

    @torch.inference_mode()
    def decode(self, rows: Sequence[Row], tokens: Sequence[int]) -> Tensor:
        """Logits [rows, vocabulary] of one token a row."""
        where = torch.tensor([[row.slot for row in rows], [row.start for row in rows]])
        state = self._embed(torch.tensor(tokens)).contiguous()
        cos, sin = self._rotate(state[None], where[1][None])
        return self.decoder.step(state, (cos[0], sin[0]), Tokens(where[0], where[1]))

    def _check(self, network: Network, memory: KeyValueSlots) -> None:
        """A few tokens one by one must give what the model gives; the slots they used are clean afterwards."""
        count = min(_CHECK_TOKENS, memory.context)
        ids = network.probe[:count]
        step = plan_step([Row(0, 0, count)], network.device)
        wanted = network.forward(ids, step, memory, torch.arange(count))
        memory.clear(0, count)
        found = torch.cat([self.decode([Row(0, place, 1)], [int(ids[place])]) for place in range(count)])
        memory.clear(0, count)
        error = distance(found, wanted)
        if not network.tolerates(error):
            raise NotCompiled(f"its logits are {error:.1%} off the model's own")


def compiled_decoder(network: Network, memory: KeyValueSlots) -> CompiledDecoder | None:
    """The decoder, or None where steps must go through the model's own forward."""
    try:
        return CompiledDecoder(network, memory)
    except NotCompiled:
        return None


def _shape(network: Network) -> DecoderShape:
    config = network.config
    width = network.shapes[0].key_width
    shape = DecoderShape(
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=network.shapes[0].heads,
        width=width,
        inner=config.intermediate_size,
        epsilon=config.rms_norm_eps,
    )
    if any(size % _VECTOR for size in (shape.hidden, shape.width, shape.inner)):
        raise NotCompiled("its widths are not whole vectors")
    if any(found != network.shapes[0] or found.value_width != width for found in network.shapes.values()):
        raise NotCompiled("its layers remember keys and values of different widths")
    if config.hidden_act not in ("silu", "swish"):
        raise NotCompiled(f"its activation is {config.hidden_act}")
    return shape


def _layer(network: Network, memory: KeyValueSlots, index: int, layer: Any) -> LayerWeights:
    look, attention, inner = network.looks[index], layer.self_attn, layer.mlp
    if not look.plain:
        raise NotCompiled("its attention does more than weigh values")
    keys, values = memory.layer(index)
    return LayerWeights(
        input_norm=_vector(layer.input_layernorm.weight),
        middle_norm=_vector(layer.post_attention_layernorm.weight),
        query_norm=_norm_of_heads(attention, "q_norm"),
        key_norm=_norm_of_heads(attention, "k_norm"),
        attention=_parts(attention, "qkv_proj", ("q_proj", "k_proj", "v_proj")),
        output=Joined((_kernel(attention.o_proj),)),
        gate_up=_parts(inner, "gate_up_proj", ("gate_proj", "up_proj")),
        down=Joined((_kernel(inner.down_proj),)),
        keys=keys,
        values=values,
        scale=look.scale,
        window=look.window,
    )


def _norm_of_heads(attention: Any, name: str) -> Tensor | None:
    norm = getattr(attention, name, None)
    return None if norm is None else _vector(norm.weight)


def _vector(weight: Tensor) -> Tensor:
    return weight.detach().float().contiguous()


def _parts(module: Any, joined: str, apart: tuple[str, ...]) -> Joined:
    """Layers of `module` with the same input: one product where they are one already, else one each."""
    if hasattr(module, joined):
        return Joined((_kernel(getattr(module, joined)),))
    layers = [getattr(module, name) for name in apart]
    first = layers[0]
    if isinstance(first, FusedLinear) and all(getattr(layer, "shared", None) is first.shared for layer in layers):
        biases = [layer.bias for layer in layers]
        if all(bias is None for bias in biases):
            return Joined(((_compiled(first.shared.kernel), None),))
        rows = [layer.out_features for layer in layers]
        parts = [torch.zeros(count) if bias is None else bias for count, bias in zip(rows, biases, strict=True)]
        return Joined(((_compiled(first.shared.kernel), torch.cat(parts).float()),))
    return Joined(tuple(_kernel(layer) for layer in layers))


def _kernel(layer: Any) -> tuple[NativeKernel, Tensor | None]:
    """The compiled product of a layer of its own, and its bias."""
    if isinstance(layer, KernelLinear):
        kernel = _compiled(layer.kernel)
    elif type(layer) is nn.Linear:
        kernel = _plain(layer.weight.detach())
    else:
        raise NotCompiled(f"one of its layers is a {type(layer).__name__}")
    return kernel, None if layer.bias is None else _vector(layer.bias)


def _compiled(kernel: object) -> NativeKernel:
    if isinstance(kernel, DenseKernel):
        if kernel.compiled is not None:
            return kernel.compiled
        if kernel.plain is not None:
            return _plain(kernel.plain)
    if not isinstance(kernel, NativeKernel):
        raise NotCompiled(f"one of its products is {getattr(kernel, 'label', type(kernel).__name__)}")
    return kernel


def _plain(weight: Tensor) -> NativeKernel:
    kernel = native_cpu.float32_kernel(weight)
    if kernel is None:
        raise NotCompiled("a weight is not float32 in rows of whole vectors")
    return kernel
