"""Moving scale from a layer's inputs into its weights without changing what the block computes.

Where a norm or a linear layer feeds other layers channel by channel, dividing its output channels by s and multiplying
the matching weight columns by s leaves the block as it is, but changes what rounding costs. AWQ (Lin et al., arXiv
2306.00978) and SmoothQuant (Xiao et al., arXiv 2211.10438) differ in how they choose s.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from qtool.quantize.contract import BlockWork, LayerWork
from qtool.quantize.rounding.moments import sharing_inputs

_NORMS = {
    "q_proj": ("input_layernorm",),
    "gate_proj": ("pre_feedforward_layernorm", "post_attention_layernorm"),
}
_BEFORE = {"o_proj": "v_proj", "down_proj": "up_proj"}
_SAME = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}  # what rounding alone changes in a block


@dataclass(frozen=True, slots=True, eq=False)
class Rescaling:
    """One place where scale can move: `source` feeds `readers`.

    kind  "norm": source.weight is divided; "norm_plus_one": 1 + source.weight is; "rows": the rows of a linear layer
    stored  the type the source's own numbers are stored in
    repeats  how many readers' columns share a channel of the source: query heads that share one value head
    """

    source_name: str
    source: nn.Module
    writer: LayerWork | None
    readers: tuple[LayerWork, ...]
    kind: Literal["norm", "norm_plus_one", "rows"]
    stored: torch.dtype
    repeats: int = 1
    head: int = 1

    def shared(self, values: Tensor) -> Tensor:
        """The largest of `values` [columns] over the columns that share a channel: [channels]."""
        if self.repeats == 1:
            return values
        return values.reshape(-1, self.repeats, self.head).amax(1).reshape(-1)

    def spread(self, channels: Tensor) -> Tensor:
        """`channels` [channels] for each column of the readers: [columns]."""
        if self.repeats == 1:
            return channels
        return channels.reshape(-1, 1, self.head).expand(-1, self.repeats, -1).reshape(-1)

    def apply(self, scales: Tensor) -> None:
        """Divides the source's channels by `scales` [channels] and multiplies the readers' columns to match."""
        source: Any = self.source
        held = source.weight.detach().float()
        offset = 1.0 if self.kind == "norm_plus_one" else 0.0
        if self.kind == "rows":
            assert self.writer is not None  # rows belong to a layer
            self.writer.rescale(rows=1 / scales)
            if source.bias is not None:
                source.bias = self._parameter(source.bias.detach().float() / scales, source.bias)
            exact = scales
        else:
            source.weight = self._parameter((held + offset) / scales - offset, source.weight)
            # the norm's weight was rounded as it will be stored: what it really became is what the columns must undo
            became = source.weight.detach().float() + offset
            exact = torch.where(became == 0, scales, (held + offset) / became)
            if getattr(source, "bias", None) is not None:
                source.bias = self._parameter(source.bias.detach().float() / exact, source.bias)
        for reader in self.readers:
            reader.rescale(columns=self.spread(exact))

    def _parameter(self, values: Tensor, like: Tensor) -> nn.Parameter:
        return nn.Parameter(values.to(self.stored).to(like), requires_grad=False)


def rescalings(block: BlockWork) -> Iterator[Rescaling]:
    """Where scale can move in `block`, in the order it runs; only among layers that are all quantized."""
    works = {work.name: work for work in block.layers}
    for together in sharing_inputs(block.layers):
        leaf = together[0].name.rpartition(".")[2]
        if leaf in _NORMS and not together[0].layer.experts:  # the router and the other experts read that norm too
            yield from _after_norm(block, together, leaf)
        elif leaf in _BEFORE:
            writer = works.get(together[0].name.removesuffix(leaf) + _BEFORE[leaf])
            if writer is not None:
                yield from _after_layer(block, writer, together[0])


def changes_nothing(block: BlockWork, rescaling: Rescaling) -> bool:
    """Whether moving scale there really leaves the block's output as it is; tried with scales from 0.5 to 2 and undone.

    A model may read a norm's output where no table says so (a router, a shortcut); this finds out.
    """
    assert block.activations is not None  # the stage refuses a recipe that needs data and got none
    before = block.activations.probe()
    modules: list[Any] = [rescaling.source, *(reader.module for reader in rescaling.readers)]
    held = [(module.weight, getattr(module, "bias", None)) for module in modules]
    works = [*rescaling.readers, *([rescaling.writer] if rescaling.writer else [])]
    masters = [work.master for work in works]
    channels = rescaling.readers[0].layer.columns // rescaling.repeats
    generator = torch.Generator().manual_seed(0)
    scales = torch.exp2(2 * torch.rand(channels, generator=generator) - 1).to(before.device)
    rescaling.apply(scales)
    after = block.activations.probe()
    for module, (weight, bias) in zip(modules, held, strict=True):
        module.weight = weight
        if bias is not None:
            module.bias = bias
    for work, master in zip(works, masters, strict=True):
        work.master = master
    difference = torch.linalg.vector_norm((after - before).float()) / torch.linalg.vector_norm(before.float())
    return bool(difference < _SAME[block.stored])


def _after_norm(block: BlockWork, together: Sequence[LayerWork], leaf: str) -> Iterator[Rescaling]:
    for name in _NORMS[leaf]:
        norm = getattr(block.module, name, None)
        weight = getattr(norm, "weight", None)
        if isinstance(norm, nn.Module) and isinstance(weight, nn.Parameter) and weight.ndim == 1:
            kind: Literal["norm", "norm_plus_one"] = "norm_plus_one" if "Gemma" in type(norm).__name__ else "norm"
            yield Rescaling(name, norm, None, tuple(together), kind, block.stored)
            return


def _after_layer(block: BlockWork, writer: LayerWork, reader: LayerWork) -> Iterator[Rescaling]:
    rows, columns = writer.layer.rows, reader.layer.columns
    if columns % rows:
        return
    repeats = columns // rows
    head = 1
    if repeats > 1:
        parent: Any = reader.parent
        head = int(getattr(parent, "head_dim", 0))
        if not head or rows % head:
            return
    yield Rescaling(writer.name, writer.module, writer, (reader,), "rows", block.stored, repeats, head)
