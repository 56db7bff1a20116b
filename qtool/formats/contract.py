"""What a format of checkpoints is: how config.json tells it, which tensors stand for a layer, and how to write both.

A format is a module of `qtool/formats`, named in its `PLUGINS`, or of a package that names it in the entry points
`qtool.formats`. A recipe calls it by its name with hyphens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from qtool.formats.schemes import LayerScheme
from qtool.formats.stored_weights import StoredFormat, StoredWeight
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint


class Format(Protocol):
    """A format that is read. `QUANT_METHOD` is what config.json calls it, `PACKINGS` what its `StoredFormat` may name,
    `SCHEMES` those that qtool writes in it: none where it is only read."""

    QUANT_METHOD: str
    PACKINGS: tuple[str, ...]
    SCHEMES: tuple[str, ...]

    def read_config(
        self, checkpoint: Checkpoint, config: Mapping[str, Any], layers: list[LinearLayer]
    ) -> dict[str, StoredFormat]:
        """How each quantized layer lies in `checkpoint`, from the quantization_config. Raises ModelError for what
        cannot be read: raw codes must never be taken for weights."""
        ...

    def suffixes(self, form: StoredFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names, after the layer's own and a dot, of the tensors a layer must have, and of those it may have."""
        ...

    def decode(self, form: StoredFormat, tensors: Mapping[str, Tensor], layer: str) -> StoredWeight:
        """The weight of `layer` from its stored tensors, named by suffix."""
        ...


class WrittenFormat(Format, Protocol):
    """A format that is written too. `ONE_SCHEME` says that all layers share one, `SYMMETRIC` that zero points are not
    safe in it."""

    ONE_SCHEME: bool
    SYMMETRIC: bool

    def stored_format(self, scheme: LayerScheme) -> StoredFormat:
        """How a layer of `scheme` lies in it."""
        ...

    def scale_dtype(self, model_dtype: torch.dtype) -> torch.dtype:
        """The type that scales are stored in."""
        ...

    def encode(self, layer: str, weight: StoredWeight, form: StoredFormat) -> dict[str, Tensor]:
        """The tensors that stand for the weight of `layer`, by suffix."""
        ...

    def size(self, rows: int, columns: int, form: StoredFormat, scale_bytes: int) -> int:
        """Bytes of these tensors, for a layer of `rows` by `columns`."""
        ...

    def write_config(
        self, schemes: Mapping[str, LayerScheme], kept: Sequence[str], *, head_kept: bool
    ) -> dict[str, Any]:
        """The quantization_config of layers stored by `schemes`; the linear layers `kept` are left alone."""
        ...

    def files(self, config: Mapping[str, Any]) -> Mapping[str, str]:
        """Further files of the checkpoint, by name, for its quantization_config."""
        ...
