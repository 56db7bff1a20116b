"""A token embedding that stays in the type it is stored in, and gives rows in the type the model computes in."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qtool.engine.layers.plain_layers import read_into, replace_module
from qtool.kernels.cpu import native_cpu
from qtool.kernels.dense import COMPILED
from qtool.kernels.linear import KernelLinear
from qtool.models.checkpoint import Checkpoint

# embeddings that do nothing but multiply a row by a number, and that number's name
_SCALED = dict.fromkeys(
    ("GemmaTextScaledWordEmbedding", "Gemma2TextScaledWordEmbedding", "Gemma3TextScaledWordEmbedding"),
    "scalar_embed_scale",
)


class NarrowEmbedding(nn.Embedding):
    """Rows are widened when they are looked up: exact, and half the memory of a table of float32 numbers. `scale` is
    what some models (Gemma) multiply a row with."""

    compute_dtype: torch.dtype
    scale: float = 1.0

    def forward(self, input: Tensor) -> Tensor:
        """ids [...] -> rows [..., width]."""
        rows = super().forward(input).to(self.compute_dtype)
        return rows if self.scale == 1.0 else rows * torch.tensor(self.scale, dtype=self.compute_dtype)


def keep_narrow(model: Any, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> None:
    """Gives `model` its embedding table as stored, where that is smaller; an output head that shares it multiplies by
    it as it is, or keeps the table wide where it cannot."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    stored = f"{_name(model, table)}.weight"
    shared = getattr(head, "weight", None) is table.weight
    scale = _SCALED.get(type(table).__name__) if type(table) is not nn.Embedding else ""
    if scale is None or stored not in checkpoint.names:
        return  # another subclass computes with its table
    kept = checkpoint.dtype(stored)
    if not kept.is_floating_point or kept.itemsize >= dtype.itemsize:
        return
    if shared and (type(head) is not nn.Linear or not multiplied_as_stored(table.weight.shape, kept, dtype, device)):
        return
    with torch.device("meta"):
        narrow = NarrowEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx)
    weight = torch.empty(table.weight.shape, dtype=kept, device=device)
    read_into(weight, checkpoint, stored)
    narrow.weight = nn.Parameter(weight, requires_grad=False)
    narrow.compute_dtype = dtype
    narrow.scale = float(getattr(table, scale)) if scale else 1.0
    replace_module(model, _name(model, table), narrow)
    if shared:
        kernel = native_cpu.bfloat16_kernel(weight)
        kernel.bytes = 0  # they are the embedding's
        rows, columns = weight.shape
        replace_module(model, _name(model, head), KernelLinear(kernel, rows=rows, columns=columns, bias=head.bias))


def multiplied_as_stored(
    shape: Sequence[int], stored: torch.dtype, computed: torch.dtype, device: torch.device
) -> bool:
    """Whether a table [rows, columns] of `stored` numbers can be a head's weight where it lies."""
    rows, columns = shape
    wide = stored is torch.bfloat16 and computed is torch.float32 and device.type == "cpu"
    return wide and rows * columns >= COMPILED and columns % native_cpu.ALIGN == 0 and not native_cpu.refusal()


def _name(model: Any, wanted: nn.Module) -> str:
    found: str = next(name for name, module in model.named_modules() if module is wanted)
    return found
