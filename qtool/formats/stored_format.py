"""Which layers of a checkpoint are quantized and how, from what its config.json says; the unknown is refused."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from qtool.errors import ModelError
from qtool.formats import registry
from qtool.formats.stored_weights import StoredFormat, StoredWeight
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
    known = {each.QUANT_METHOD: each for each in registry.formats()}
    if method not in known:
        raise ModelError(f"{checkpoint.folder}: quantized by {method!r}; qtool reads {', '.join(known)}")
    with blamed_on(f"{checkpoint.folder}: config.json: quantization_config cannot be understood"):
        formats = known[method].read_config(checkpoint, config, layers)
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


def tensor_suffixes(form: StoredFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names, after the layer's own and a dot, of the tensors a layer in `form` must have, and of those it may have."""
    return registry.of_packing(form.packing).suffixes(form)


def decode(form: StoredFormat, tensors: Mapping[str, Tensor], *, layer: str) -> StoredWeight:
    """The weight of `layer` from its stored tensors, named by suffix. Raises ModelError where they do not fit."""
    needed, allowed = tensor_suffixes(form)
    missing = sorted(set(needed) - set(tensors))
    unexpected = sorted(set(tensors) - set(needed) - set(allowed))
    if missing or unexpected:
        raise ModelError(
            f"{layer}: stored as {form.packing}, but "
            + "; ".join(f"{what} {', '.join(names)}" for what, names in _named(missing, unexpected))
        )
    return registry.of_packing(form.packing).decode(form, tensors, layer)


def _named(missing: list[str], unexpected: list[str]) -> list[tuple[str, list[str]]]:
    return [(what, names) for what, names in (("has no", missing), ("also has", unexpected)) if names]


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
