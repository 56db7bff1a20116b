"""What the numbers of a variant are: one row a scheme. Loads no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

_GROUPS = (32, 64, 128, -1)
_USUAL_METHOD = "rtn"


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a scheme stores: bits and kind of a weight, group sizes that may be asked for, how activations may be
    treated, the method that makes it where none is named, and the formats of qtool itself that hold it."""

    about: str
    bits: int
    groups: tuple[int, ...]
    activations: tuple[Literal["none", "dynamic", "static"], ...]
    formats: tuple[str, ...]
    kind: Literal["int", "float8"] = "int"
    asymmetric: bool = False
    default_method: str = _USUAL_METHOD

    @property
    def rounds_inputs(self) -> bool:
        """Whether the inputs of its layers are in 8 bits too."""
        return "none" not in self.activations


SCHEMES: Mapping[str, Scheme] = {
    "base": Scheme("the model as it is: the baseline of every comparison", 16, (-1,), ("none",), ("none",)),
    "w4a16": Scheme(
        "4-bit integer weights in groups, 16-bit activations",
        4,
        _GROUPS,
        ("none",),
        ("compressed-tensors", "gptq"),
        asymmetric=True,
    ),
    "w8a16": Scheme(
        "8-bit integer weights, 16-bit activations",
        8,
        _GROUPS,
        ("none",),
        ("compressed-tensors", "gptq"),
        asymmetric=True,
    ),
    "w8a8": Scheme(
        "8-bit integer weights and activations, per token (dynamic) or from calibrated ranges (static)",
        8,
        (-1,),
        ("dynamic", "static"),
        ("compressed-tensors",),
    ),
    "fp8": Scheme(
        "8-bit floating point (E4M3) weights and activations",
        8,
        (-1,),
        ("dynamic", "static"),
        ("compressed-tensors",),
        kind="float8",
    ),
    "gguf": Scheme(
        "numbers of block types that have no codes here; only of imported GGUF files", 16, (-1,), ("none",), ("none",)
    ),
    "nf4": Scheme(
        "4-bit NormalFloat weights of bitsandbytes",
        4,
        (-1,),
        ("none",),
        ("bitsandbytes",),
        default_method="bitsandbytes",
    ),
    "int8": Scheme("LLM.int8() of bitsandbytes", 8, (-1,), ("none",), ("bitsandbytes",), default_method="bitsandbytes"),
}


@dataclass(frozen=True, slots=True)
class LayerScheme:
    """What one layer is stored as. Layers with equal schemes share a group of the config."""

    scheme: str
    group_size: int
    symmetric: bool
    activations: Literal["none", "dynamic", "static"]

    @property
    def row(self) -> Scheme:
        """The scheme's row."""
        return SCHEMES[self.scheme]

    def dynamic(self) -> "LayerScheme":
        """The same with a scale for each token's input."""
        return replace(self, activations="dynamic")
