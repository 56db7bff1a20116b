"""Which layers of a checkpoint are quantized and how, from what its config.json says; the unknown is refused."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from qtool.errors import ModelError
from qtool.formats.stored_weights import Packing, StoredFormat, StoredWeight, decode, tensor_suffixes
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint
from qtool.models.foreign import blamed_on


def stored_formats(checkpoint: Checkpoint, linears: Iterable[LinearLayer]) -> dict[str, StoredFormat]:
    """The format of each quantized layer of `checkpoint`; layers that are not named here hold plain numbers.

    Raises ModelError for a quant_method qtool cannot read: raw codes must never be taken for weights.
    """
    config = checkpoint.config.get("quantization_config", checkpoint.config.get("compression_config"))
    layers = list(linears)
    if config is None:
        _refuse_leftovers(checkpoint, {}, layers)
        return {}
    method = str(config.get("quant_method"))
    reader = _READERS.get(method)
    if reader is None:
        raise ModelError(f"{checkpoint.folder}: quantized by {method!r}; qtool reads {', '.join(_READERS)}")
    with blamed_on(f"{checkpoint.folder}: config.json: quantization_config cannot be understood"):
        formats = reader(checkpoint, config, layers)
    if not formats:
        raise ModelError(f"{checkpoint.folder}: config.json says quantized by {method}, and quantizes no layer")
    _refuse_leftovers(checkpoint, formats, layers)
    return formats


def read_weight(checkpoint: Checkpoint, layer: str, form: StoredFormat) -> StoredWeight:
    """The quantized weight of `layer`, as codes and scales."""
    needed, allowed = tensor_suffixes(form)
    present = [suffix for suffix in (*needed, *allowed) if f"{layer}.{suffix}" in checkpoint.names]
    return decode(form, {suffix: checkpoint.tensor(f"{layer}.{suffix}") for suffix in present}, layer=layer)


def stored_names(layer: str, form: StoredFormat) -> frozenset[str]:
    """Every tensor name that belongs to the stored weight of `layer`."""
    needed, allowed = tensor_suffixes(form)
    return frozenset(f"{layer}.{suffix}" for suffix in (*needed, *allowed))


def _compressed_tensors(
    checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]
) -> dict[str, StoredFormat]:
    for key in ("sparsity_config", "transform_config", "kv_cache_scheme"):
        if config.get(key):
            raise ModelError(f"{checkpoint.folder}: compressed-tensors with {key}, which qtool does not read")
    groups = config.get("config_groups") or {}
    ignore = tuple(str(entry) for entry in config.get("ignore") or ())
    formats = {}
    for layer in layers:
        if _matches(layer.name, ignore):
            continue
        for group in groups.values():
            if _matches(layer.name, group["targets"]):
                formats[layer.name] = _scheme(checkpoint, group, str(group.get("format") or config.get("format")))
                break
    return formats


def _scheme(checkpoint: Checkpoint, group: Mapping[str, Any], packing: str) -> StoredFormat:
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    if packing not in ("pack-quantized", "int-quantized", "float-quantized") or group.get("output_activations"):
        raise ModelError(f"{checkpoint.folder}: compressed-tensors format {packing!r}, which qtool does not read")
    strategy = weights.get("strategy")
    if strategy not in ("tensor", "channel", "group") or weights.get("actorder") in ("group", "dynamic"):
        raise ModelError(f"{checkpoint.folder}: weights by {strategy!r}, which qtool does not read")
    activations: Literal["none", "dynamic", "static"] = "none"
    if inputs:
        activations = "dynamic" if inputs.get("dynamic") else "static"
        wanted = "token" if activations == "dynamic" else "tensor"
        if inputs.get("num_bits") != 8 or inputs.get("strategy") != wanted:
            raise ModelError(f"{checkpoint.folder}: {activations} activations by {inputs.get('strategy')!r}; not read")
    return StoredFormat(
        packing=cast(Packing, packing),
        bits=int(weights["num_bits"]),
        group_size=int(weights["group_size"]) if strategy == "group" else -1,
        symmetric=bool(weights.get("symmetric", True)),
        activations=activations,
    )


def _gptq(checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]) -> dict[str, StoredFormat]:
    written = str(config.get("checkpoint_format") or config.get("format") or "gptq")
    if written not in ("gptq", "gptq_v2"):
        raise ModelError(f"{checkpoint.folder}: GPTQ checkpoint format {written!r}; qtool reads gptq and gptq_v2")
    if any(not str(pattern).startswith("-:") for pattern in config.get("dynamic") or ()):  # "-:" leaves a module alone
        raise ModelError(f"{checkpoint.folder}: GPTQ with settings per module (dynamic), which qtool does not read")
    form = StoredFormat(
        packing=cast(Packing, written),
        bits=int(config["bits"]),
        group_size=int(config.get("group_size", -1)),
        symmetric=bool(config.get("sym", True)),
    )
    return {layer.name: form for layer in layers if f"{layer.name}.qweight" in checkpoint.names}


def _awq(checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]) -> dict[str, StoredFormat]:
    version = str(config.get("version") or config.get("format") or "gemm").lower()
    if version != "gemm":
        raise ModelError(f"{checkpoint.folder}: AWQ version {version!r}; qtool reads gemm")
    bits = int(config.get("bits") or config.get("w_bit") or 4)
    group_size = int(config.get("group_size") or config.get("q_group_size") or -1)
    form = StoredFormat(packing="awq", bits=bits, group_size=group_size, symmetric=not config.get("zero_point", True))
    return {layer.name: form for layer in layers if f"{layer.name}.qweight" in checkpoint.names}


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        re.match(pattern[3:], name) is not None if pattern.startswith("re:") else pattern in (name, "Linear")
        for pattern in patterns
    )


def _refuse_leftovers(checkpoint: Checkpoint, formats: dict[str, StoredFormat], layers: list[LinearLayer]) -> None:
    """Refuses a layer whose stored tensors are not what the config says: codes without a scheme, or the reverse."""
    present = set(checkpoint.names)
    for layer in layers:
        codes = {f"{layer.name}.weight_packed", f"{layer.name}.qweight", f"{layer.name}.weight_scale"} & present
        if layer.name not in formats and codes:
            raise ModelError(f"{checkpoint.folder}: {sorted(codes)[0]} is stored, but config.json does not say how")
        if layer.name in formats:
            needed, _ = tensor_suffixes(formats[layer.name])
            missing = sorted(f"{layer.name}.{suffix}" for suffix in needed if f"{layer.name}.{suffix}" not in present)
            if missing:
                raise ModelError(f"{checkpoint.folder}: {missing[0]} is missing")


_READERS: dict[str, Callable[[Checkpoint, Mapping[str, Any], list[LinearLayer]], dict[str, StoredFormat]]] = {
    "compressed-tensors": _compressed_tensors,
    "gptq": _gptq,
    "awq": _awq,
}
