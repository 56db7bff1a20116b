"""What a quantization method is given and what it must hand back.

A method is a module of `qtool/quantize/methods` that follows `BlockMethod` or `FolderMethod`. One of scope "block" is
handed one decoder block at a time (`BlockWork`) and yields a result for every layer in it. One of scope "folder" is
handed the whole model (`FolderWork`), writes a checkpoint, and returns its ledger.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from qtool.formats.stored_weights import StoredWeight
from qtool.progress import Progress
from qtool.records.variant import LedgerRow, Recipe, Verification

if TYPE_CHECKING:
    from qtool.models.architecture import Architecture, LinearLayer

Visitor = Callable[[str, Tensor], None]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method asks for. `formats` are those it writes itself: one of scope "block" names none, for its results
    are stored in any format that holds the scheme. `options` are its own settings with one line of help each;
    `package` is an optional package and the extra that installs it; `sequences` says that it must see calibration
    tokens."""

    scope: Literal["block", "folder"]
    schemes: tuple[str, ...]
    formats: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    sequences: bool = False
    package: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers a weight may become: `bits` bits, one scale for `group_size` columns of a row (-1: the whole row)."""

    kind: Literal["int", "float8"]
    bits: int
    group_size: int
    symmetric: bool
    scale_dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class LayerResult:
    """What the layer of that name becomes. `method` is what was really done; `reason` says why where it is not what was
    asked. `clipped_share` is the share of weights beyond the ends of their grid."""

    layer: str
    weight: StoredWeight
    method: str
    clipped_share: float
    dead_columns: int = 0
    tokens_seen: int = 0
    damping: float | None = None
    reason: str = ""


@dataclass(slots=True, eq=False)
class LayerWork:
    """One layer to quantize. `parent` is the module it is a part of; `master` is the weight
    in float32 once it was rescaled, so that moving scale costs no precision; `static` says that its input gets one
    stored scale."""

    layer: "LinearLayer"
    module: nn.Module
    grid: Grid
    scheme: str
    parent: nn.Module | None = None
    static: bool = False
    master: Tensor | None = None

    @property
    def name(self) -> str:
        return self.layer.name

    def weight(self) -> Tensor:
        """float32 [rows, columns], as it is now."""
        weight: Any = self.module.weight
        return weight.detach().float() if self.master is None else self.master

    def rescale(self, *, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
        """Multiplies the weight by `rows` [rows] or `columns` [columns]; the bias is left to the caller."""
        weight = self.weight()
        if rows is not None:
            weight = weight * rows[:, None]
        if columns is not None:
            weight = weight * columns
        self.master = weight
        held: Any = self.module
        held.weight = nn.Parameter(weight.to(held.weight), requires_grad=False)


class Activations(Protocol):
    """What calibration tokens look like inside one block, computed by running it."""

    @property
    def learnt_batches(self) -> int:
        """How many batches a method may learn from; the held-out ones come behind them."""
        ...

    def visit(self, layers: Sequence[LayerWork], visitor: Visitor, *, held_out: bool = False) -> None:
        """Runs the block as it is now and calls `visitor(layer name, inputs [tokens, columns])` for each batch."""
        ...

    def base_inputs(self, layers: Sequence[LayerWork]) -> Mapping[str, list[Tensor]] | None:
        """Inputs [tokens, columns] of `layers` a batch when no block was quantized, this one included, the held-out
        batches behind the others; lets that flow leave the block, so it may be asked for once and before any result is
        yielded. None where there is no such flow."""
        ...

    def closes_branch(self, work: LayerWork) -> bool:
        """Whether `visit_missing` can be asked for this layer; known after `base_inputs`."""
        ...

    def visit_missing(
        self, work: LayerWork, visitor: Callable[[Tensor, Tensor], None], *, held_out: bool = False
    ) -> None:
        """Runs the block as it is now and calls `visitor(inputs, missing)` for each batch: the inputs of `work` and how
        far the residual stream after it is from the unquantized model's."""
        ...

    def probe(self) -> Tensor:
        """What the block as it is now gives for the first batch: hidden states of real tokens [tokens, width]."""
        ...


@dataclass(slots=True, eq=False)
class BlockWork:
    """One decoder block with its weights in place. `activations` is None where no calibration was given.

    A result that a method yields is put into the block before the method goes on: the quantized weight, and the
    quantized input where the scheme asks for it, so that what is computed after it sees what will be served. `stored`
    is the type that what stays unquantized is stored in, which may be narrower than the type it is computed in.
    """

    module: nn.Module
    layers: tuple[LayerWork, ...]
    recipe: Recipe
    activations: Activations | None
    stored: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True, eq=False)
class FolderWork:
    """The whole model: read `source`, write a checkpoint into `target`."""

    source: Path
    target: Path
    recipe: Recipe
    architecture: "Architecture"
    layers: "tuple[LinearLayer, ...]"
    sequences: tuple[tuple[int, ...], ...]
    progress: Progress


@dataclass(frozen=True, slots=True)
class FolderResult:
    """The ledger of a method that wrote the checkpoint itself, and what it compared after opening it again."""

    rows: tuple[LedgerRow, ...]
    verification: Verification | None = None


class BlockMethod(Protocol):
    """A module that quantizes a model block by block."""

    NEEDS: Needs

    def check(self, recipe: Recipe) -> tuple[str, ...]:
        """What is wrong with the options of `recipe`."""
        ...

    def quantize(self, block: BlockWork) -> Iterator[LayerResult]:
        """One result for every layer of `block`, in any order."""
        ...


class FolderMethod(Protocol):
    """A module that writes the whole checkpoint itself."""

    NEEDS: Needs

    def check(self, recipe: Recipe) -> tuple[str, ...]:
        """What is wrong with the options of `recipe`."""
        ...

    def quantize(self, work: FolderWork) -> FolderResult:
        """The ledger of the checkpoint that was written into the folder of `work`."""
        ...
