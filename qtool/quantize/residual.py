"""Where a block adds to its residual stream, so that the layer that adds can make up for all that the stream lacks.

Arai and Ichikawa (arXiv 2504.09629) let a layer make up for the drift of its own inputs. The output of a layer that
closes a residual branch is added to a stream that has drifted too, by what every layer before it did; it can make up
for that as well, as far as its inputs tell of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qtool.quantize.contract import LayerWork

_MIDDLE = ("pre_feedforward_layernorm", "post_attention_layernorm")  # the norm that reads the stream in mid-block
_ATTENTION, _FEED_FORWARD = "o_proj", "down_proj"
_SAME = 1e-2  # of the branch's own size: half precision rounds the sum


@dataclass(slots=True, eq=False)
class Stream:
    """The stream of one block while it runs: `middle`, the norm between its two branches, and the layers that close
    them; `states` what that norm saw a batch, and `outputs` what the closing layers gave for the first batch."""

    middle: nn.Module
    closing: Mapping[str, nn.Module]
    states: list[Tensor] = field(default_factory=list)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def watch(self) -> list[Any]:
        """Notes states and outputs from now on; returns the handles that end it."""

        def note(leaf: str) -> Any:
            def after(_: nn.Module, __: Any, output: Tensor) -> None:  # a hook that returned something would replace it
                self.outputs.setdefault(leaf, output)

            return after

        handles = [module.register_forward_hook(note(leaf)) for leaf, module in self.closing.items()]
        return [*handles, self.middle.register_forward_pre_hook(lambda _, inputs: self.states.append(inputs[0]))]

    def adds(self, entering: Tensor, leaving: Tensor) -> bool:
        """Whether both branches are plainly added to the stream; of the first batch, before and after the block."""
        if not self.states or set(self.outputs) != set(self.closing):
            return False
        middle = self.states[0]
        pairs = ((middle - entering, self.outputs[_ATTENTION]), (leaving - middle, self.outputs[_FEED_FORWARD]))
        return all(
            found.shape == given.shape
            and bool(torch.linalg.vector_norm(found - given) <= _SAME * torch.linalg.vector_norm(given))
            for found, given in pairs
        )


def stream_of(module: nn.Module, layers: Sequence[LayerWork]) -> Stream | None:
    """The residual stream of a block, or None where it is not built as its names would say."""
    middle = next((norm for name in _MIDDLE if isinstance(norm := getattr(module, name, None), nn.Module)), None)
    found = [work for work in layers if leaf_of(work) in (_ATTENTION, _FEED_FORWARD)]
    closing = {leaf_of(work): work.module for work in found}
    one_each = len(found) == len(closing) == 2  # experts have many
    return Stream(middle, closing) if middle is not None and one_each else None


def leaf_of(work: LayerWork) -> str:
    """The last part of the layer's name."""
    return work.name.rpartition(".")[2]


def is_last(work: LayerWork) -> bool:
    """Whether a layer that closes a branch is the one whose sum leaves the block."""
    return leaf_of(work) == _FEED_FORWARD
