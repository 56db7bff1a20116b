"""What each block of a decoder does, found by looking at its parts and asking them, not by the name of its class."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qtool.engine.layers.plain_layers import replace_module
from qtool.kernels.cpu import native_cpu
from qtool.kernels.cpu.native_cpu import NativeKernel
from qtool.kernels.cpu.native_decoder import ACTIVATIONS, Joined, NormWeights
from qtool.kernels.dense import DenseKernel
from qtool.kernels.fused import FusedLinear
from qtool.kernels.linear import KernelLinear

_ATTENTION = ("self_attn", "attn", "attention")
_FEED_FORWARD = ("mlp", "feed_forward")
_OUTPUT = ("o_proj", "c_proj", "dense", "out_proj")
_JOINED = ("qkv_proj", "c_attn")
_UP = ("c_fc", "fc1", "up_proj", "dense_h_to_4h")
_DOWN = ("down_proj", "c_proj", "fc2", "dense_4h_to_h")
_LAST_NORM = ("norm", "ln_f", "final_layernorm", "final_layer_norm")
_ACTIVATION = ("act_fn", "activation_fn", "act")
_EPSILON = ("eps", "variance_epsilon", "epsilon")
_ALIKE = 1e-5


class NotCompiled(Exception):
    """Why a model's steps are not one compiled call."""


class Norms:
    """The norms of a block by what they do; None where the block has none there."""

    def __init__(self, layer: nn.Module) -> None:
        self.after_attention: NormWeights | None = None
        self.after_feed_forward: NormWeights | None = None
        self.input = _norm_of(layer, ("input_layernorm", "ln_1"))
        if hasattr(layer, "post_feedforward_layernorm"):  # Gemma 2 and 3; without a norm before them OLMo 2, EXAONE 4
            self.after_attention = _norm_of(layer, ("post_attention_layernorm",))
            self.middle = _norm_of(layer, ("pre_feedforward_layernorm",))
            self.after_feed_forward = _norm_of(layer, ("post_feedforward_layernorm",))
        else:
            self.middle = _norm_of(layer, ("post_attention_layernorm", "ln_2"))


def stack_of(model: nn.Module, count: int) -> tuple[Any, Any]:
    """The module that holds `count` blocks, and the list of them."""
    for module in model.modules():
        for child in module.children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, child
    raise NotCompiled("its layers are not one list")


def attention_of(layer: Any) -> Any:
    return _first(layer, _ATTENTION, "attention")


def feed_forward_of(layer: Any) -> Any:
    return _first(layer, _FEED_FORWARD, "feed-forward part")


def last_norm(stack: Any) -> NormWeights:
    norm = _norm_of(stack, _LAST_NORM)
    if norm is None:
        raise NotCompiled("it has no norm after its layers")
    return norm


def norm_of_heads(attention: Any, names: tuple[str, ...], width: int) -> NormWeights | None:
    """The norm of each query's or key's `width` numbers."""
    norm = _norm_of(attention, names)
    if norm is not None and norm.weight.numel() != width:
        raise NotCompiled("it normalizes queries and keys of all heads together")
    return norm


def activation_of(mlp: Any) -> str:
    """Which of ACTIVATIONS the feed-forward part uses, asked of it."""
    function = _first(mlp, _ACTIVATION, "activation")
    inputs = torch.linspace(-6.0, 6.0, 193)
    with torch.inference_mode():
        outputs = function(inputs)
    relu = torch.nn.functional.relu(inputs)
    known = {
        "silu": torch.nn.functional.silu(inputs),
        "gelu tanh": torch.nn.functional.gelu(inputs, approximate="tanh"),
        "gelu": torch.nn.functional.gelu(inputs),
        "relu": relu,
        "relu squared": relu * relu,
    }
    for name in ACTIVATIONS:
        if (outputs - known[name]).abs().max() < _ALIKE:
            return name
    raise NotCompiled(f"its activation, {type(function).__name__}, is none of {', '.join(ACTIVATIONS)}")


def attention_products(model: nn.Module, attention: Any) -> tuple[Joined, Joined]:
    """Query, key and value; and the product of what was attended to."""
    output = Joined((_kernel(model, _first(attention, _OUTPUT, "output")),))
    joined = next((name for name in _JOINED if hasattr(attention, name)), None)
    if joined is not None:
        return Joined((_kernel(model, getattr(attention, joined)),)), output
    return _parts(model, attention, ("q_proj", "k_proj", "v_proj")), output


def feed_forward_products(model: nn.Module, mlp: Any) -> tuple[Joined, Joined, bool]:
    """What goes up, what comes down, and whether the way up has a gate."""
    down = Joined((_kernel(model, _first(mlp, _DOWN, "way down")),))
    if hasattr(mlp, "gate_up_proj"):
        return Joined((_kernel(model, mlp.gate_up_proj),)), down, True
    if hasattr(mlp, "gate_proj"):
        return _parts(model, mlp, ("gate_proj", "up_proj")), down, True
    return Joined((_kernel(model, _first(mlp, _UP, "way up")),)), down, False


def head_product(model: Any) -> tuple[NativeKernel, Tensor | None]:
    return _kernel(model, model.get_output_embeddings())


def _first(module: Any, names: Sequence[str], what: str) -> Any:
    found = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    if found is None:
        raise NotCompiled(f"a {type(module).__name__} has no {what} by a known name")
    return found


def _norm_of(module: Any, names: Sequence[str]) -> NormWeights | None:
    norm = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    return None if norm is None or isinstance(norm, nn.Identity) else _as_numbers(norm)


def _as_numbers(norm: Any) -> NormWeights:
    """Factors of a norm, found by what it makes of random numbers: some multiply by 1 + weight, some centre."""
    weight = getattr(norm, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        raise NotCompiled(f"its norm, {type(norm).__name__}, has no weight")
    bias = getattr(norm, "bias", None)
    epsilon = next((float(getattr(norm, name)) for name in _EPSILON if hasattr(norm, name)), 0.0)
    added_bias = None if bias is None else _vector(bias)
    if type(norm) is nn.LayerNorm:
        return NormWeights(_vector(weight), added_bias, epsilon, centred=True)
    inputs = torch.randn(4, weight.numel(), generator=torch.Generator().manual_seed(0)) + 0.5
    with torch.inference_mode():
        outputs = copy.deepcopy(norm).float()(inputs)  # some refuse float32 inputs beside factors of another type
    for centred in (False, True):
        for above in (0.0, 1.0):
            found = NormWeights((weight.detach().float() + above).contiguous(), added_bias, epsilon, centred)
            if (_normalized(inputs, found) - outputs).norm() <= _ALIKE * outputs.norm():
                return found
    raise NotCompiled(f"its norm, {type(norm).__name__}, is neither RMS nor LayerNorm")


def _normalized(inputs: Tensor, norm: NormWeights) -> Tensor:
    centre = inputs - inputs.mean(-1, keepdim=True) if norm.centred else inputs
    scaled = centre * torch.rsqrt(centre.square().mean(-1, keepdim=True) + norm.epsilon) * norm.weight
    return scaled if norm.bias is None else scaled + norm.bias


def _vector(weight: Tensor) -> Tensor:
    return weight.detach().float().contiguous()


def _parts(model: nn.Module, module: Any, names: tuple[str, ...]) -> Joined:
    """Layers of `module` with the same input: one product where they are one already, else one each."""
    layers = [_first(module, (name,), name) for name in names]
    first = layers[0]
    if isinstance(first, FusedLinear) and all(getattr(layer, "shared", None) is first.shared for layer in layers):
        biases = [layer.bias for layer in layers]
        if all(bias is None for bias in biases):
            return Joined(((_compiled(first.shared.kernel), None),))
        rows = [layer.out_features for layer in layers]
        parts = [torch.zeros(count) if bias is None else bias.float() for count, bias in zip(rows, biases, strict=True)]
        return Joined(((_compiled(first.shared.kernel), torch.cat(parts)),))
    return Joined(tuple(_kernel(model, layer) for layer in layers))


def _kernel(model: nn.Module, layer: Any) -> tuple[NativeKernel, Tensor | None]:
    """The compiled product of a layer of its own, and its bias."""
    if type(layer).__name__ == "Conv1D" and type(layer).__module__.startswith("transformers."):
        layer = _as_rows(model, layer)
    if isinstance(layer, KernelLinear):
        kernel = _compiled(layer.kernel)
    elif type(layer) is nn.Linear:
        kernel = _plain(layer.weight.detach())
    else:
        raise NotCompiled(f"one of its layers is a {type(layer).__name__}")
    return kernel, None if layer.bias is None else _vector(layer.bias)


def _as_rows(model: nn.Module, layer: Any) -> KernelLinear:
    """GPT-2 stores its matrices with a row for each input; the model takes the compiled product in their place."""
    weight = layer.weight.detach().t().contiguous()
    kernel = native_cpu.bfloat16_kernel(weight) if weight.dtype is torch.bfloat16 else _plain(weight)
    name = next(name for name, module in model.named_modules() if module is layer)
    replacement = KernelLinear(kernel, rows=weight.shape[0], columns=weight.shape[1], bias=layer.bias.detach())
    replace_module(model, name, replacement)
    return replacement


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
    kernel = native_cpu.bfloat16_kernel(weight) if weight.dtype is torch.bfloat16 else native_cpu.float32_kernel(weight)
    if kernel is None:
        raise NotCompiled("a weight is not float32 in rows of whole vectors")
    return kernel
