"""What the rules of a serving program say to a quantized checkpoint, before anybody loads it there."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from qtool.records.presentation import Presented

Consequence = Literal["will not load", "misread", "slow", "needs"]
STOPS: tuple[Consequence, ...] = ("will not load", "misread")


@dataclass(frozen=True, slots=True)
class TargetFinding:
    """One rule that objects: what follows, the layers it names (none where it means the whole checkpoint), and where
    the rule was read, in which version."""

    rule: str
    consequence: Consequence
    layers: tuple[str, ...]
    explanation: str
    version: str
    source: str


@dataclass(frozen=True, slots=True, repr=False)
class TargetLint(Presented):
    """The rules of `target` that speak of the checkpoint's format, held against it. `rules_checked` of them were;
    `rules_without_gpu` could not be, since no GPU was named. `compute_capability` is "9.0" for an H100, empty without a
    GPU."""

    SHOWN: ClassVar[tuple[str, ...]] = ("checkpoint", "target", "gpu", "rules_checked")

    checkpoint: str
    format: str
    quantized_layers: int
    target: str
    gpu: str
    compute_capability: str
    rules_checked: int
    rules_without_gpu: int
    versions: tuple[str, ...]
    findings: tuple[TargetFinding, ...]

    @property
    def stops(self) -> bool:
        """Whether a rule says that the target will not load the checkpoint, or reads it as other numbers."""
        return any(finding.consequence in STOPS for finding in self.findings)
