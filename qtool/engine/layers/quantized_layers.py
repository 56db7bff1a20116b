"""Quantized layers of a checkpoint, read one group at a time into the form their kernels want."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from qtool.errors import ModelError
from qtool.formats.stored_format import read_weight
from qtool.formats.stored_weights import StoredFormat, StoredWeight
from qtool.kernels.dispatch import choose_kernel
from qtool.kernels.fused import SharedProduct, fuse, join, may_be_joined
from qtool.kernels.linear import KernelLinear
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint


def quantized_groups(formats: Mapping[str, StoredFormat], layers: Mapping[str, LinearLayer]) -> list[tuple[str, ...]]:
    """Names of quantized layers, those with the same input and the same format side by side."""
    found: list[tuple[str, ...]] = []
    for name, form in formats.items():
        group = layers[name].fused_group or (name,)
        if len(group) > 1 and all(formats.get(member) == form for member in group):
            if name == group[0]:
                found.append(group)
        else:
            found.append((name,))
    return found


def quantized_modules(
    checkpoint: Checkpoint,
    layers: list[LinearLayer],
    formats: Mapping[str, StoredFormat],
    dtype: torch.dtype,
    device: torch.device,
) -> Sequence[nn.Module]:
    """A module for each of `layers`: over one shared product where their weights can be joined."""
    weights = [_read_checked(checkpoint, layer, formats[layer.name], device) for layer in layers]
    biases = [checkpoint.tensor(f"{layer.name}.bias").to(device, dtype) if layer.bias else None for layer in layers]
    activations, columns = formats[layers[0].name].activations, layers[0].columns
    if len(layers) > 1 and may_be_joined(weights):
        kernel = choose_kernel(join(weights), activations, device=device)
        shared = SharedProduct(kernel, columns=columns, parts=len(layers))
        return fuse(shared, [layer.rows for layer in layers], columns, biases)
    return [
        KernelLinear(choose_kernel(weight, activations, device=device), rows=layer.rows, columns=columns, bias=bias)
        for layer, weight, bias in zip(layers, weights, biases, strict=True)
    ]


def _read_checked(checkpoint: Checkpoint, layer: LinearLayer, form: StoredFormat, device: torch.device) -> StoredWeight:
    weight = read_weight(checkpoint, layer.name, form)
    if tuple(weight.codes.shape) != (layer.rows, layer.columns):
        raise ModelError(
            f"{checkpoint.folder}: {layer.name} is stored as {tuple(weight.codes.shape)}, "
            f"the model wants {(layer.rows, layer.columns)}"
        )
    if not bool(torch.isfinite(weight.scales.float()).all()):
        raise ModelError(f"{checkpoint.folder}: {layer.name} has scales that are NaN or infinite")
    return weight if device.type == "cpu" else _moved(weight, device)


def _moved(weight: StoredWeight, device: torch.device) -> StoredWeight:
    zeros, group = weight.zeros, weight.group_of_column
    return replace(
        weight,
        codes=weight.codes.to(device),
        scales=weight.scales.to(device),
        zeros=None if zeros is None else zeros.to(device),
        group_of_column=None if group is None else group.to(device),
    )
