"""A token embedding that stays in the type it is stored in, and gives rows in the type the model computes in."""

from typing import Any

import torch
from torch import Tensor, nn

from qtool.engine.plain_layers import read_into, replace_module
from qtool.models.checkpoint import Checkpoint


class NarrowEmbedding(nn.Embedding):
    """Rows are widened when they are looked up: exact, and half the memory of a table of float32 numbers."""

    compute_dtype: torch.dtype

    def forward(self, input: Tensor) -> Tensor:
        """ids [...] -> rows [..., width]."""
        return super().forward(input).to(self.compute_dtype)


def keep_narrow(model: Any, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> None:
    """Gives `model` its embedding table as stored, where that is smaller and no output head shares it."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    stored = f"{name}.weight"
    if type(table) is not nn.Embedding or getattr(head, "weight", None) is table.weight:
        return  # a subclass computes with its table, a head multiplies by it
    if stored not in checkpoint.names or not checkpoint.dtype(stored).is_floating_point:
        return
    if checkpoint.dtype(stored).itemsize >= dtype.itemsize:
        return
    with torch.device("meta"):
        narrow = NarrowEmbedding(table.num_embeddings, table.embedding_dim, table.padding_idx)
    weight = torch.empty(table.weight.shape, dtype=checkpoint.dtype(stored), device=device)
    read_into(weight, checkpoint, stored)
    narrow.weight = nn.Parameter(weight, requires_grad=False)
    narrow.compute_dtype = dtype
    replace_module(model, name, narrow)
