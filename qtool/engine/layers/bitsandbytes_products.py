"""bitsandbytes' 4-bit layers on a CPU by the compiled product: its own dequantizes a whole matrix for each token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qtool.engine.layers.plain_layers import LoadedLinears, place_plain, plain_layers, replace_module
from qtool.kernels.cpu import native_cpu
from qtool.kernels.cpu.native_cpu import NativeKernel
from qtool.kernels.fused import SharedProduct, fuse
from qtool.kernels.linear import KernelLinear
from qtool.models.architecture import LinearLayer


def compile_four_bits(model: Any, linears: Sequence[LinearLayer]) -> None:
    """Gives every 4-bit layer that fits its compiled product, layers with the same input one together. A model whose
    4-bit layers all fit then computes in float32."""
    layers = {name: module for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    done: set[str] = set()
    for linear in linears:
        names = linear.fused_group or (linear.name,)
        members = [layers[name] for name in names if name in layers]
        if done.intersection(names) or len(members) < len(names) or not all(_fits(member) for member in members):
            continue
        _replace(model, names, members)
        done.update(names)
    for name, module in layers.items():  # a layer of its own where not all of its group are 4-bit layers that fit
        if name not in done and _fits(module):
            _replace(model, (name,), [module])
    if layers and all(
        _fits(module) for module in layers.values()
    ):  # transformers left the rest in the type it is stored in
        nn.Module.to(model, torch.float32)  # the model's own `to` refuses what bitsandbytes made
        for names in plain_layers(model, linears, layers):
            place_plain(model, names, LoadedLinears(model))


def _fits(layer: Any) -> bool:
    state = layer.weight.quant_state
    whole = len(state.shape) == 2 and state.shape[1] == layer.in_features
    return whole and native_cpu.book_fits(layer.in_features, state.blocksize)


def _replace(model: nn.Module, names: Sequence[str], layers: Sequence[Any]) -> None:
    kernel = _kernel(layers)
    columns, rows = layers[0].in_features, [layer.out_features for layer in layers]
    biases = [None if layer.bias is None else layer.bias.detach().float() for layer in layers]
    if len(names) == 1:
        replace_module(model, names[0], KernelLinear(kernel, rows=rows[0], columns=columns, bias=biases[0]))
        return
    shared = SharedProduct(kernel, columns=columns, parts=len(names))
    for name, part in zip(names, fuse(shared, rows, columns, biases), strict=True):
        replace_module(model, name, part)


def _kernel(layers: Sequence[Any]) -> NativeKernel:
    """One product of layers with the same input. Format: two places a byte, the first in its high bits, row by row."""
    states = [layer.weight.quant_state for layer in layers]
    places = [_places(layer.weight.data, state.shape) for layer, state in zip(layers, states, strict=True)]
    scales = [_scales(state).view(state.shape[0], -1) for state in states]
    return native_cpu.book_kernel(torch.cat(places), torch.cat(scales), states[0].code.float(), states[0].quant_type)


def _places(packed: Tensor, shape: Sequence[int]) -> Tensor:
    stored = packed.reshape(-1).view(torch.uint8)
    return torch.stack((stored >> 4, stored & 15), dim=-1).view(*shape)


def _scales(state: Any) -> Tensor:
    """The largest magnitude of each block, float32; those that are quantized themselves as bitsandbytes reads them."""
    if not state.nested:
        return state.absmax.float()  # type: ignore[no-any-return]
    from bitsandbytes import functional

    return functional.dequantize_blockwise(state.absmax, state.state2).float() + state.offset  # type: ignore[no-any-return]
