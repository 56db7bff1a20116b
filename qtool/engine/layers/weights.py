"""From a folder to a model that runs: weights go from disk into the form their kernels want, one layer at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qtool.engine.layers.embedding import keep_narrow, multiplied_as_stored
from qtool.engine.layers.plain_layers import (
    LoadedLinears,
    StoredLinears,
    assign,
    place_plain,
    plain_layers,
    read_into,
    replace_module,
)
from qtool.engine.layers.quantized_layers import quantized_groups, quantized_modules
from qtool.engine.scheduling.memory import freed_at_once, refuse_if_too_large
from qtool.errors import ModelError
from qtool.formats.stored_format import stored_formats, stored_names
from qtool.formats.tensor_names import open_as_used
from qtool.kernels.contract import Kernel
from qtool.kernels.cpu import native_cpu
from qtool.kernels.dense import COMPILED
from qtool.kernels.fused import FusedLinear
from qtool.kernels.linear import KernelLinear
from qtool.kernels.tiles import TileKernel
from qtool.models.architecture import LinearLayer, describe_model
from qtool.models.checkpoint import Checkpoint, open_checkpoint
from qtool.models.completeness import load_base
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import unfold

_DEAD_NAMES = ("rotary_emb.inv_freq", "masked_bias", "attn.bias")  # buffers that old checkpoints carry along


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to run, which kernel holds each linear layer, and the bytes of all its weights.

    `dtype` is what it computes in: what was asked for, but for formats that bring their own. `simulated`: some layers
    have no product of their own here.
    """

    model: Any
    kernels: tuple[tuple[str, str], ...]
    weight_bytes: int
    dtype: torch.dtype
    simulated: bool = False


def load_model(folder: Path, *, dtype: torch.dtype, device: torch.device) -> LoadedModel:
    """The model of `folder` on `device`, quantized layers as their kernels want them, the rest in `dtype`.

    Raises CapacityError before anything is read when it cannot fit, ModelError when tensors are missing or left over.
    """
    with freed_at_once():
        return _load(folder, dtype, device)


def _load(folder: Path, dtype: torch.dtype, device: torch.device) -> LoadedModel:
    checkpoint = open_checkpoint(folder)
    quantization = checkpoint.config.get("quantization_config") or checkpoint.config.get("compression_config")
    if quantization is not None and quantization.get("quant_method") == "bitsandbytes":
        from qtool.engine.layers.bitsandbytes import load_bitsandbytes

        refuse_if_too_large(f"{folder}", checkpoint.bytes, device)
        model = load_bitsandbytes(folder, dtype=dtype, device=device)
        return LoadedModel(model, _describe(model), checkpoint.bytes, model.get_input_embeddings().weight.dtype)
    refuse_if_too_large(f"{folder}", resident_bytes(checkpoint, dtype, device), device)
    model = empty_model(folder)
    if quantization is None and not _named_alike(model, checkpoint):
        model = load_base(folder, dtype=dtype, device=device)  # transformers knows how to translate other names
        for names in plain_layers(model, describe_model(model).linears, {}):
            place_plain(model, names, LoadedLinears(model))
    else:
        if quantization is not None:  # every expert a layer of its own, and of them only those that are asked for run
            checkpoint, _ = open_as_used(folder, unfold(model))
        _assemble(model, checkpoint, dtype=dtype, device=device)
    simulated = any(isinstance(kernel, TileKernel) for kernel in kernels_of(model))
    return LoadedModel(model, _describe(model), _weight_bytes(model), dtype, simulated)


def resident_bytes(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> int:
    """Bytes of all weights once loaded: codes as stored, matrices and vectors of numbers in `dtype`, but bfloat16
    matrices that the compiled products hold as they are where the model computes in float32."""
    kept = dtype is torch.float32 and device.type == "cpu" and not native_cpu.refusal()
    tied = bool(checkpoint.config.get("tie_word_embeddings"))
    total = 0
    for name in checkpoint.names:
        size, stored = checkpoint.tensor_bytes(name), checkpoint.dtype(name)
        plain = stored.is_floating_point and stored.itemsize > 1 and not name.endswith(("_scale", ".scales"))
        narrow = kept and stored is torch.bfloat16 and size >= 2 * COMPILED
        if narrow and tied and _is_table(name):
            narrow = multiplied_as_stored(checkpoint.shape(name), stored, dtype, device)
        total += size * dtype.itemsize // stored.itemsize if plain and not narrow else size
    return total


def _is_table(name: str) -> bool:
    return any(word in name for word in ("embed", "wte"))


def _named_alike(model: Any, checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's names are the model's own, and every weight may be held in one type."""
    wanted, stored = set(model.state_dict()), {name for name in checkpoint.names if not name.endswith(_DEAD_NAMES)}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    mixed = any(getattr(module, "_keep_in_fp32_modules", None) for module in model.modules())
    return stored <= wanted and all(name in stored or tied.get(name) in stored for name in wanted) and not mixed


def _assemble(model: Any, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> None:
    """Gives an empty model its weights, the largest layers first: what one of them needs for a moment while it is
    packed then lies beside few others, and the peak is little above what stays."""
    layers = {layer.name: layer for layer in describe_model(model).linears}
    formats = stored_formats(checkpoint, layers.values())
    plain = plain_layers(model, tuple(layers.values()), formats)
    source = StoredLinears(checkpoint, dtype=dtype, device=device)
    used: set[str] = set()
    for names in sorted([*quantized_groups(formats, layers), *plain], key=lambda group: -_scalars(group, layers)):
        if names[0] in formats:
            members = [layers[name] for name in names]
            modules = quantized_modules(checkpoint, members, formats, dtype, device)
            for name, module in zip(names, modules, strict=True):
                replace_module(model, name, module)
                used |= stored_names(name, formats[name])
        elif all(f"{name}.weight" in checkpoint.names for name in names):
            place_plain(model, names, source)
            used |= {f"{name}.weight" for name in names}
        used |= {f"{name}.bias" for name in names}
    keep_narrow(model, checkpoint, dtype=dtype, device=device)
    used |= _fill_rest(model, checkpoint, dtype=dtype, device=device)
    left = [name for name in checkpoint.names if name not in used and not name.endswith(_DEAD_NAMES)]
    if left:
        raise ModelError(f"{checkpoint.folder}: {len(left)} tensors belong to no layer of the model, first {left[0]!r}")
    model.eval()


def _scalars(names: tuple[str, ...], layers: dict[str, LinearLayer]) -> int:
    return sum(layers[name].rows * layers[name].columns for name in names if name in layers)


def _fill_rest(model: Any, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> set[str]:
    """Gives every parameter and stored buffer still on the meta device its tensor; the names that were used."""
    used: set[str] = set()
    stored = set(checkpoint.names)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    filled: dict[str, torch.Tensor] = {}
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]:
        source = name if name in stored else tied.get(name, name)
        if source in stored:
            used.add(source)
            if tensor.is_meta and source not in filled:
                own = checkpoint.dtype(source)
                value = torch.empty(tensor.shape, dtype=dtype if own.is_floating_point else own, device=device)
                read_into(value, checkpoint, source)
                filled[source] = value
            if tensor.is_meta:
                assign(model, name, filled[source])
        elif tensor.is_meta:
            raise ModelError(f"{checkpoint.folder}: tensor {name!r} is missing")
        else:
            assign(model, name, tensor.to(device))
    _tie(model, tied)
    return used


def _tie(model: Any, tied: Mapping[str, str]) -> None:
    """Makes tied parameters one; a layer whose weight a kernel holds has none to be tied."""
    for target, source in tied.items():
        parent, _, leaf = target.rpartition(".")
        owner = model.get_submodule(parent)
        if leaf in owner._parameters:
            setattr(owner, leaf, model.get_parameter(source))


def _describe(model: nn.Module) -> tuple[tuple[str, str], ...]:
    """Which kernel each linear layer runs on."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, KernelLinear):
            found.append((name, module.kernel.label))
        elif isinstance(module, FusedLinear):
            found.append((name, module.shared.kernel.label))
        elif hasattr(module, "weight") and getattr(module.weight, "ndim", 0) == 2 and not list(module.children()):
            if isinstance(module, nn.Embedding):
                continue
            found.append((name, _plain_label(module)))
    return tuple(found)


def _plain_label(module: nn.Module) -> str:
    package, kind = type(module).__module__.partition(".")[0], type(module).__name__
    if package == "bitsandbytes":
        return f"{package} {kind}"
    dtype = str(module.weight.dtype).removeprefix("torch.")
    return f"{dtype} {'plain product' if type(module) is nn.Linear else kind}"


def kernels_of(model: nn.Module) -> tuple[Kernel, ...]:
    """Every kernel of the model once, however many layers share it."""
    found: dict[int, Kernel] = {}
    for module in model.modules():
        if isinstance(module, KernelLinear):
            found[id(module.kernel)] = module.kernel
        elif isinstance(module, FusedLinear):
            found[id(module.shared.kernel)] = module.shared.kernel
    return tuple(found.values())


def _weight_bytes(model: nn.Module) -> int:
    kernels = sum(kernel.bytes for kernel in kernels_of(model))
    return kernels + sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
