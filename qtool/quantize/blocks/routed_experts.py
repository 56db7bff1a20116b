"""What calibration tokens look like inside the experts of a block.

The block is run once up to its experts; each expert is then run by itself, on the tokens that were routed to it.
Running the block once for every expert would cost as many passes as there are experts.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qtool.models.unfolded import Experts
from qtool.quantize.blocks.hidden_states import BlockActivations
from qtool.quantize.contract import LayerWork, Visitor

_Entering = list[tuple[Tensor, Tensor]]


class _Enough(Exception):
    """Ends a run that has shown what was to be seen."""


def with_experts(inner: BlockActivations, block: str) -> "BlockActivations | RoutedActivations":
    """`inner`, or, where block `block` has experts, the same with them seen one by one."""
    experts = {
        f"{block}.{name}": module for name, module in inner.module.named_modules() if isinstance(module, Experts)
    }
    return RoutedActivations(inner, experts) if experts else inner


class RoutedActivations:
    """contract.Activations of a block with experts, `experts` by name. What enters them is kept until anything before
    them is looked at again: until then nothing before them can have changed."""

    def __init__(self, inner: BlockActivations, experts: Mapping[str, Experts]) -> None:
        self._inner = inner
        self._experts = experts
        self._entered: dict[tuple[str, bool], _Entering] = {}

    @property
    def learnt_batches(self) -> int:
        """How many of the batches a method may learn from; the others follow."""
        return self._inner.samples.held_out_from

    @torch.inference_mode()
    def visit(self, layers: Sequence[LayerWork], visitor: Visitor, *, held_out: bool = False) -> None:
        """Calls `visitor(layer name, inputs [tokens, columns])` once a layer and batch that reaches it."""
        others = [work for work in layers if not work.layer.experts]
        if others:
            self._entered.clear()
            self._inner.visit(others, visitor, held_out=held_out)
        for place, index, works in _by_expert(layers):
            self._run(self._experts[place][index], works, visitor, self._routed(place, index, held_out))

    def base_inputs(self, layers: Sequence[LayerWork]) -> Mapping[str, list[Tensor]] | None:
        """As of contract.Activations, without the experts: the unquantized model routes tokens in its own way."""
        self._entered.clear()
        return self._inner.base_inputs([work for work in layers if not work.layer.experts])

    def closes_branch(self, work: LayerWork) -> bool:
        """As of contract.Activations; no expert closes a branch alone."""
        return not work.layer.experts and self._inner.closes_branch(work)

    def visit_missing(
        self, work: LayerWork, visitor: Callable[[Tensor, Tensor], None], *, held_out: bool = False
    ) -> None:
        """As of contract.Activations."""
        self._entered.clear()
        self._inner.visit_missing(work, visitor, held_out=held_out)

    def advance_base(self) -> None:
        """As of BlockActivations."""
        self._entered.clear()
        self._inner.advance_base()

    def probe(self) -> Tensor:
        """As of contract.Activations."""
        self._entered.clear()
        return self._inner.probe()

    def advance(self, block: str) -> None:
        """Lets every batch flow through the block as it is now."""
        self._entered.clear()
        self._inner.advance(block)

    def forget(self) -> None:
        """Lets go of what is kept of the block's runs."""
        self._entered.clear()
        if hasattr(self._inner, "forget"):
            self._inner.forget()

    def _run(self, expert: nn.Module, works: Sequence[LayerWork], visitor: Visitor, batches: Iterator[Tensor]) -> None:
        pending: set[str] = set()

        def watching(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
                visitor(name, inputs[0])
                pending.discard(name)
                if not pending:
                    raise _Enough

            return before

        handles = [work.module.register_forward_pre_hook(watching(work.name), prepend=True) for work in works]
        try:
            for tokens in batches:
                pending |= {work.name for work in works}
                with contextlib.suppress(_Enough):
                    expert(tokens)
        finally:
            for handle in handles:
                handle.remove()

    def _routed(self, place: str, index: int, held_out: bool) -> Iterator[Tensor]:
        """Hidden states [tokens, width] routed to expert `index`, a batch at a time; empty ones are left out."""
        for hidden, chosen in self._entering(place, held_out):
            mine = hidden[(chosen == index).any(-1)]
            if len(mine):
                yield mine

    def _entering(self, place: str, held_out: bool) -> _Entering:
        """What enters the experts for each batch without its padding: hidden [tokens, width] and chosen [tokens, k]."""
        if (place, held_out) in self._entered:
            return self._entered[place, held_out]
        seen: _Entering = []
        current: list[Tensor] = []

        def before(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            hidden, chosen = (*inputs, *named.values())[:2]
            real = current[0].reshape(-1)
            seen.append((hidden.reshape(-1, hidden.shape[-1])[real], chosen.reshape(-1, chosen.shape[-1])[real]))
            raise _Enough

        samples = self._inner.samples
        batches = slice(samples.held_out_from, None) if held_out else slice(0, samples.held_out_from)
        handle = self._experts[place].register_forward_pre_hook(before, prepend=True, with_kwargs=True)
        try:
            for state, real in zip(samples.hidden[batches], samples.real[batches], strict=True):
                current[:] = [real]
                with contextlib.suppress(_Enough):
                    samples.run(self._inner.module, self._inner.index, state)
        finally:
            handle.remove()
        self._entered[place, held_out] = seen
        return seen


def _by_expert(layers: Sequence[LayerWork]) -> Iterator[tuple[str, int, list[LayerWork]]]:
    """The experts' layers among `layers`: name of all experts, number of the one, and its layers."""
    found: dict[tuple[str, int], list[LayerWork]] = {}
    for work in layers:
        if place := work.layer.experts:
            index = int(work.name.removeprefix(place + ".").partition(".")[0])
            found.setdefault((place, index), []).append(work)
    for (place, index), works in found.items():
        yield place, index, works
