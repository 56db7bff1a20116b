"""A copy of a model with its linear layers rounded to 4 bits, made once for all tasks and held in a byte a weight."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qtool.engine.scheduling.memory import available_bytes, freed_at_once
from qtool.records.place import Place, Server

BITS = 4
_SPARE = 1.3  # times what the copy takes while it is made must be free


class RoundedCopy:
    """The copy of the model at `place`, made when it is first asked for."""

    def __init__(self, place: Place, device: str) -> None:
        self._place, self._device = place, device
        self._found: tuple[Any, float, str] | None = None

    def get(self) -> tuple[Any, float, str]:
        """The model as plain modules, the norm of the change over that of its weights, and an empty reason; None, 0 and
        the reason where it cannot be had."""
        if self._found is None:
            with freed_at_once():
                model, why_not = self._read()
                self._found = (model, round_weights(model) if model is not None else 0.0, why_not)
                if model is not None:
                    model.float()  # all that is not rounded is computed as exactly as the products
        return self._found

    def _read(self) -> tuple[Any, str]:
        from qtool.machine.device import choose_device
        from qtool.models.checkpoint import is_quantized, open_checkpoint, read_config
        from qtool.models.completeness import load_base

        folder = self._place
        if isinstance(folder, Server) or not (folder / "config.json").is_file() or is_quantized(read_config(folder)):
            return None, "its weights are not in this folder as plain numbers"
        device = choose_device(self._device)
        checkpoint = open_checkpoint(folder)
        stored = checkpoint.main_dtype()
        dtype = stored if stored.itemsize == 2 else torch.bfloat16  # half the memory; 4 bits are far coarser
        needed = _SPARE * checkpoint.bytes * dtype.itemsize / stored.itemsize
        if needed > available_bytes(device):
            return None, f"a copy to be rounded needs {needed / 1e9:.1f} GB of free memory"
        return load_base(folder, dtype=dtype, device=device), ""


class RoundedLinear(nn.Module):
    """A linear layer whose weight is whole numbers times one step for each row."""

    codes: Tensor
    steps: Tensor

    def __init__(self, codes: Tensor, steps: Tensor, bias: Tensor | None, *, transposed: bool) -> None:
        super().__init__()
        self.register_buffer("codes", codes)
        self.register_buffer("steps", steps)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self._transposed = transposed

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's outputs for `inputs`, in their own type."""
        rows = functional.linear(inputs, self.codes.to(inputs.dtype)) * self.steps.t().to(inputs.dtype)
        return rows if self.bias is None else rows + self.bias.to(inputs.dtype)

    @property
    def weight(self) -> Tensor:
        """The weight as the layer that was rounded held it, for blocks that read it themselves."""
        weight = self.codes * self.steps
        return weight.t() if self._transposed else weight


def round_weights(model: Any) -> float:
    """Replaces every linear layer inside the blocks by one rounded symmetrically, a step for each row; the norm of the
    change over the norm of the weights."""
    from qtool.models.architecture import describe_model

    changed = whole = 0.0
    largest = 2 ** (BITS - 1)
    with torch.no_grad():
        for layer in describe_model(model).linears:
            if layer.block is None:
                continue
            module = model.get_submodule(layer.name)
            rows = module.weight.float().t() if layer.transposed else module.weight.float()
            step = (2 * rows.abs().amax(dim=1, keepdim=True) / (2 * largest - 1)).clamp(min=1e-12)
            codes = torch.round(rows / step).clamp(-largest, largest - 1)
            changed += float((codes * step - rows).square().sum())
            whole += float(rows.square().sum())
            bias = getattr(module, "bias", None)
            rounded = RoundedLinear(codes.to(torch.int8), step, bias, transposed=layer.transposed)
            model.set_submodule(layer.name, rounded)
    return float((changed / whole) ** 0.5) if whole else 0.0
