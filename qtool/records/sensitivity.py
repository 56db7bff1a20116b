"""What each layer costs when it alone is rounded: what a mixed variant is chosen from."""

from dataclasses import dataclass

from qtool.records.model import ModelIdentity
from qtool.records.variant import Recipe


@dataclass(frozen=True, slots=True)
class UnitSensitivity:
    """One layer, or layers that share a scheme. KL in nats a token, the mean over held-out tokens.

    `kl_alone`: only this unit is rounded. `kl_without`: all but this unit are. Bytes as stored, in the base and
    rounded.
    """

    layers: tuple[str, ...]
    kl_alone: float
    kl_without: float
    base_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """Every unit of a model under one scheme, and the KL when all are rounded, over `tokens` held-out tokens."""

    format_version: int
    model: ModelIdentity
    recipe: Recipe
    kl_all: float
    tokens: int
    units: tuple[UnitSensitivity, ...]
    qtool_version: str
