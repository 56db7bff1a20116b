"""A model as one nn.Linear for every matrix product: joined experts taken apart, GPT-2's Conv1D turned.

transformers holds the experts of a block in tensors of three dimensions, and Conv1D holds [columns, rows]. Taken apart
and turned they are linear layers with a name and a place like any other, for whoever quantizes or multiplies them.
"""

from typing import Any

import torch
from torch import Tensor, nn

_JOINED = frozenset({"gate_up_proj", "down_proj"})
_FIRST_PARTS = ("gate_proj", "w1")  # what published checkpoints call an expert's gate


class TurnedLinear(nn.Linear):
    """A Conv1D as the linear layer it is: weight [rows, columns]."""


class Expert(nn.Module):
    """One gated expert: down(activation(gate(x)) * up(x)), for x [tokens, width]."""

    def __init__(self, joined: Any, index: int) -> None:
        super().__init__()
        gate_up, down = joined.gate_up_proj, joined.down_proj
        half = gate_up.shape[1] // 2
        self.gate_proj = _linear(nn.Linear, gate_up[index, :half])
        self.up_proj = _linear(nn.Linear, gate_up[index, half:])
        self.down_proj = _linear(nn.Linear, down[index])
        self.act_fn = joined.act_fn

    def forward(self, hidden: Tensor) -> Tensor:
        """[tokens, width] -> [tokens, width]."""
        result: Tensor = self.down_proj(self.act_fn(self.gate_proj(hidden)) * self.up_proj(hidden))
        return result


class Experts(nn.ModuleList):
    """The experts of a block, each a module of its own; only those that tokens are routed to are run."""

    def __init__(self, joined: Any) -> None:
        super().__init__(Expert(joined, index) for index in range(joined.gate_up_proj.shape[0]))

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """hidden_states [tokens, width], the experts chosen [tokens, k] and their shares [tokens, k] -> the sum of what
        the chosen give [tokens, width], added in the order of the experts whatever other tokens there are."""
        result = torch.zeros_like(hidden_states)
        for index in torch.unique(top_k_index).tolist():
            if index >= len(self):  # one past the last marks a token that is routed to none
                continue
            tokens, place = torch.where(top_k_index == index)
            given = self[index](hidden_states[tokens]) * top_k_weights[tokens, place, None]
            result.index_add_(0, tokens, given.to(result.dtype))
        return result


def unfold(model: Any) -> Any:
    """`model` itself, with every Conv1D and every module of joined experts replaced; weights are views, not copies.

    Experts in a form that is not transformers' usual one (transposed, with biases, without a gate or with one of
    the model's own making) stay as they are, and so do those of an architecture whose checkpoints transformers cannot
    read with each expert by itself: a quantized one could then be loaded by nobody.
    """
    from transformers.pytorch_utils import Conv1D

    modules = list(model.named_modules())
    apart = _stored_apart(model, [name for name, module in modules if is_joined(module)])
    for name, module in modules:
        replacement: nn.Module
        if isinstance(module, Conv1D):
            replacement = _linear(TurnedLinear, module.weight.t(), module.bias)
        elif name in apart:
            replacement = Experts(module)
        else:
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, replacement.train(module.training))
    return model


def _stored_apart(model: Any, places: list[str]) -> set[str]:
    """Those of `places` whose experts transformers also reads one by one."""
    from qtool.models.conversion import Translation

    if not places:
        return set()
    translation = Translation(model, model.state_dict())
    return {place for place in places if any(translation.joins(f"{place}.0.{part}.weight") for part in _FIRST_PARTS)}


def is_joined(module: Any) -> bool:
    """Whether `module` holds gated experts as [experts, 2 * inner, width] and [experts, width, inner], no biases."""
    held = dict(module.named_parameters())
    if set(held) != _JOINED or any(parameter.ndim != 3 for parameter in held.values()):
        return False
    experts, rows, width = held["gate_up_proj"].shape
    usual = getattr(module, "is_concatenated", False) and not getattr(module, "is_transposed", True)
    usual = usual and not getattr(module, "has_post_expert_norm", False)
    usual = usual and getattr(type(module), "_apply_gate", is_joined).__name__ == "_default_apply_gate"
    return bool(usual) and rows % 2 == 0 and tuple(held["down_proj"].shape) == (experts, width, rows // 2)


def _linear(kind: type[nn.Linear], weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    rows, columns = weight.shape
    with torch.device("meta"):
        layer = kind(columns, rows, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return layer
