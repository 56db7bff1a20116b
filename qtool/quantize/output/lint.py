"""The rules vLLM applies when it loads a quantized checkpoint, checked before it has to."""

from collections.abc import Iterable, Mapping

from qtool.formats.schemes import SCHEMES, LayerScheme
from qtool.models.architecture import Architecture, LinearLayer

_MARLIN_ROWS = 64
_MARLIN_COLUMNS = 128
_INT8_MULTIPLE = 16


def lint(architecture: Architecture, schemes: Mapping[str, LayerScheme], layout: str) -> tuple[str, ...]:
    """What vLLM would refuse or run slowly, one line a rule; empty when it loads and finds its kernels.

    Groups that do not divide and fused layers of different schemes are not among them: those are refused outright.
    """
    layers = [layer for layer in architecture.linears if layer.name in schemes]
    weight_only = [layer for layer in layers if schemes[layer.name].activations == "none"]
    both = [layer for layer in layers if schemes[layer.name].activations != "none"]
    found = [
        *_widths(weight_only, "the Marlin kernels", _MARLIN_ROWS, _MARLIN_COLUMNS),
        *_widths(both, "the 8-bit kernels", _INT8_MULTIPLE, _INT8_MULTIPLE),
    ]
    if unread := unread_by_transformers(architecture, schemes, layout):
        found.append(unread)
    return tuple(found)


def unread_by_transformers(architecture: Architecture, schemes: Mapping[str, LayerScheme], layout: str) -> str | None:
    """Why transformers cannot load what is written, or computes something else with it; None where it can.

    As transformers 5.23 with compressed-tensors 0.20 was found to do. It joins experts as it loads them, which undoes
    their compression: inputs are then no longer rounded, and all of them are read by one scheme.
    """
    layers = [layer for layer in architecture.linears if layer.name in schemes]
    experts = {schemes.get(layer.name) for layer in architecture.linears if layer.experts}
    if layout != "compressed-tensors":
        return "experts in GPTQ layout: transformers has no module for them, servers do" if experts - {None} else None
    if any(layer.turned for layer in layers):
        return (
            "Conv1D layers: transformers cannot load them from compressed-tensors and may leave them random with no "
            "more than a warning; load this with qtool, or write --format gptq for GPTQModel"
        )
    if experts - {None} and any(scheme is not None and scheme.activations != "none" for scheme in experts):
        return "experts with 8-bit inputs: transformers refuses int8 ones and does not round the inputs of fp8 ones"
    if len(experts) > 1 or any(scheme is None or not scheme.symmetric for scheme in experts):
        return "experts: transformers loads them only if all are quantized, symmetrically and by one scheme"
    return None


def emulated_here(scheme: str) -> str | None:
    """A line that says so where this machine has no products of the scheme's numbers and only emulates them."""
    import torch

    if SCHEMES[scheme].kind != "float8" or (torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)):
        return None
    return "fp8: this machine has no 8-bit float products; the variant can be made, but runs emulated, slowly"


def _widths(layers: Iterable[LinearLayer], kernels: str, rows: int, columns: int) -> list[str]:
    wrong = [layer.name for layer in layers if layer.rows % rows or layer.columns % columns]
    if not wrong:
        return []
    return [
        f"{len(wrong)} layers are not multiples of {rows} rows and {columns} columns, which {kernels} of vLLM ask for; "
        f"first {wrong[0]}"
    ]
