"""Quantized layers as tensors and config entries of a checkpoint, in the format that the recipe names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from qtool.formats import registry
from qtool.formats.schemes import LayerScheme
from qtool.formats.stored_weights import StoredFormat, StoredWeight
from qtool.quantize.contract import Grid
from qtool.quantize.request.recipe import HEAD
from qtool.records.variant import Recipe

if TYPE_CHECKING:
    from qtool.formats.contract import WrittenFormat


def grid_of(scheme: LayerScheme, scale_dtype: torch.dtype) -> Grid:
    """The grid that the weights of a layer of `scheme` are rounded to."""
    return Grid(scheme.row.kind, scheme.row.bits, scheme.group_size, scheme.symmetric, scale_dtype)


def stored_format(scheme: LayerScheme, layout: str) -> StoredFormat:
    """How a checkpoint of format `layout` holds a layer of `scheme`."""
    return registry.written(layout).stored_format(scheme)


def scale_dtype(layout: str, model_dtype: torch.dtype) -> torch.dtype:
    """The type that scales are stored in."""
    return registry.written(layout).scale_dtype(model_dtype)


def layer_tensors(layer: str, weight: StoredWeight, form: StoredFormat) -> dict[str, Tensor]:
    """The tensors that stand for the weight of `layer` in a checkpoint, by their full names."""
    tensors = _of(form).encode(layer, weight, form)
    return {f"{layer}.{suffix}": tensor.contiguous() for suffix, tensor in tensors.items()}


def layer_bytes(rows: int, columns: int, form: StoredFormat, scale_bytes: int) -> int:
    """Size of the stored tensors of one layer of `rows` by `columns`."""
    return _of(form).size(rows, columns, form, scale_bytes)


def quantization_config(recipe: Recipe, schemes: Mapping[str, LayerScheme], kept: Sequence[str]) -> dict[str, Any]:
    """`quantization_config` of config.json for layers stored by `schemes`; the linear layers `kept` are left alone."""
    return registry.written(recipe.format).write_config(schemes, kept, head_kept=HEAD in recipe.skip)


def _of(form: StoredFormat) -> "WrittenFormat":
    return cast("WrittenFormat", registry.of_packing(form.packing))
