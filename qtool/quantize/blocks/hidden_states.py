"""Calibration tokens as hidden states that flow from block to block, and what one block's layers see of them."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qtool.errors import DataError, NumericError
from qtool.models.block_form import BlockCall
from qtool.quantize.blocks.residual import Branch, Stream, is_last, leaf_of, stream_of
from qtool.quantize.blocks.streaming import StreamedModel, entering_blocks
from qtool.quantize.contract import LayerWork, Visitor

_BATCH_TOKENS = 4096
_KEPT_BYTES = 1 << 29  # of inputs of a block's last layer, kept so that the block need not be run again to be left


@dataclass(slots=True, eq=False)
class Samples:
    """Hidden states [rows, tokens, width] of each batch before the next block.

    `real` bool [rows, tokens] marks what is no padding; `calls` is what the model hands each block for a batch of that
    many rows and tokens; the batches from `held_out_from` on were kept back and only measure. `base` is what the other
    batches would be had nothing been quantized, where a method asks for it; `base_held_out` is that of the held-out
    ones, for which it is always known.
    """

    hidden: list[Tensor]
    real: list[Tensor]
    calls: dict[tuple[int, int], list[BlockCall]]
    held_out_from: int
    base: list[Tensor] | None = None
    base_held_out: list[Tensor] = field(default_factory=list)

    def tokens(self) -> int:
        """Real tokens of the batches a method may learn from."""
        return sum(int(mask.sum()) for mask in self.real[: self.held_out_from])

    def run(self, module: nn.Module, index: int, hidden: Tensor) -> Tensor:
        """What a batch of hidden states becomes in block `index`, which is `module`."""
        return self.calls[hidden.shape[0], hidden.shape[1]][index].run(module, hidden)


def enter(streamed: StreamedModel, rows: Sequence[Sequence[int]], held_out: Sequence[Sequence[int]]) -> Samples:
    """The token sequences as hidden states that enter the first block. The weights outside the blocks must be there."""
    if not rows and not held_out:
        raise DataError("the calibration holds no token sequences")
    learnt, kept = (list(_batches(part)) for part in (rows, held_out))
    hidden: list[Tensor] = []
    calls: dict[tuple[int, int], list[BlockCall]] = {}
    with streamed.loaded_block(0), torch.inference_mode():
        for ids, _ in (*learnt, *kept):
            entering, given, _ = entering_blocks(streamed.model, streamed.architecture.blocks, ids.to(streamed.device))
            hidden.append(entering)
            calls[ids.shape[0], ids.shape[1]] = given
    real = [mask for _, mask in (*learnt, *kept)]
    return Samples(hidden, real, calls, len(learnt), base_held_out=list(hidden[len(learnt) :]))


def _batches(rows: Sequence[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and which of them are no padding; rows of about one length together, so that little is padding."""
    waiting = sorted(rows, key=len)
    while waiting:
        longest = len(waiting[-1])
        taken = waiting[-max(1, _BATCH_TOKENS // longest) :]
        del waiting[-len(taken) :]
        ids = torch.zeros(len(taken), longest, dtype=torch.long)
        real = torch.zeros(len(taken), longest, dtype=torch.bool)
        for index, row in enumerate(taken):
            ids[index, : len(row)] = torch.tensor(row)  # padded on the right: a causal model never looks there
            real[index, : len(row)] = True
        yield ids, real


class _Seen(Exception):
    """Ends a block's run; `inputs`, what the layer that ended it was given."""

    def __init__(self, inputs: Any = None) -> None:
        super().__init__()
        self.inputs = inputs


def _end(_: nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _Seen(inputs[0])


@dataclass(slots=True, eq=False)
class BlockActivations:
    """What calibration tokens look like inside one block; see contract.Activations."""

    module: nn.Module
    index: int
    samples: Samples
    _pending: set[str] = field(default_factory=set)
    _stream: Stream | None = None

    @property
    def learnt_batches(self) -> int:
        """How many of the batches a method may learn from; the others follow."""
        return self.samples.held_out_from

    @torch.inference_mode()
    def visit(self, layers: Sequence[LayerWork], visitor: Visitor, *, held_out: bool = False) -> None:
        """Calls `visitor(layer name, inputs [tokens, columns])` once a layer and batch; inputs are not yet rounded."""
        current: list[Tensor] = []
        handles = [self._watch(work, visitor, current) for work in layers]
        ahead = None if held_out else self._attended(layers)
        try:
            for batch, (hidden, real) in enumerate(self._batches(held_out)):
                current[:] = [real]
                self._pending = {work.name for work in layers}
                with contextlib.suppress(_Seen), _standing_in(ahead, batch):
                    self.samples.run(self.module, self.index, hidden)
        finally:
            for handle in handles:
                handle.remove()

    @torch.inference_mode()
    def base_inputs(self, layers: Sequence[LayerWork]) -> Mapping[str, list[Tensor]] | None:
        """Inputs of `layers` a batch in the flow of the unquantized model, which then leaves the block; nothing for
        those that close a residual branch: see `visit_missing`."""
        learnt = self.samples.base
        if learnt is None:
            return None
        current: list[Tensor] = []
        self._pending = {""}  # nothing ends these runs early: the flow has to leave the block
        stream = stream_of(self.module, layers)
        seen: dict[str, list[Tensor]] = {work.name: [] for work in layers}
        handles = [
            self._watch(work, lambda name, inputs: seen[name].append(inputs.clone()), current) for work in layers
        ]
        handles += [] if stream is None else stream.watch()
        try:
            for batch, real in enumerate(self.samples.real):
                current[:] = [real]
                flow, place = self._base_flow(batch)
                entering = flow[place]
                leaving = flow[place] = self.samples.run(self.module, self.index, entering)
                if batch == 0 and stream is not None and stream.adds(entering, leaving):
                    self._stream = stream
                for work in layers:
                    if self.closes_branch(work):
                        seen[work.name].clear()
        finally:
            for handle in handles:
                handle.remove()
        return seen

    @torch.inference_mode()
    def advance_base(self) -> None:
        """Lets the held-out batches flow through the block as the unquantized model would; for methods that do not ask
        for `base_inputs`, before they begin."""
        flow = self.samples.base_held_out
        for place, entering in enumerate(flow):
            flow[place] = self.samples.run(self.module, self.index, entering)

    def _base_flow(self, batch: int) -> tuple[list[Tensor], int]:
        """The list that holds the unquantized state of `batch`, and where."""
        border = self.samples.held_out_from
        if batch >= border:
            return self.samples.base_held_out, batch - border
        assert self.samples.base is not None  # base_inputs has looked
        return self.samples.base, batch

    def closes_branch(self, work: LayerWork) -> bool:
        """Whether what `work` gives is added to the block's residual stream, whose drift is known."""
        return self._stream is not None and leaf_of(work) in self._stream.branches

    @torch.inference_mode()
    def visit_missing(
        self, work: LayerWork, visitor: Callable[[Tensor, Tensor], None], *, held_out: bool = False
    ) -> None:
        """For a layer that closes a branch: calls `visitor(inputs [tokens, columns], missing [tokens, rows])` a batch,
        where `missing` is what the stream after it lacks of what the unquantized model would have there. The first
        branch has to be asked for before the second, and the held-out batches after the others."""
        stream = self._stream
        assert stream is not None  # closes_branch has said so
        branch = stream.branches[leaf_of(work)]
        ahead = None
        if not held_out:
            branch.forget()
            ahead = self._attended([work])
            if is_last(work):  # the first branch has used them; what is wanted here leaves the block
                stream.states.clear()
        keeps = not held_out and (not is_last(work) or self._fits(work))
        first = self.samples.held_out_from if held_out else 0
        middle: list[Tensor] = []
        handles = [stream.middle.register_forward_pre_hook(lambda _, inputs: middle.append(inputs[0]))]
        handles.append(work.module.register_forward_pre_hook(_end, prepend=True))
        try:
            for batch, (hidden, real) in enumerate(self._batches(held_out)):
                inputs = self._run_to_end(ahead, batch, hidden)
                before = middle.pop() if is_last(work) else hidden
                flow, place = self._base_flow(first + batch)
                wanted = flow[place] if is_last(work) else stream.states[first + batch]
                visitor(_taken(inputs, real), _taken(wanted - (before + work.module.forward(inputs)), real))
                if keeps:
                    branch.remember(inputs, before)
        finally:
            for handle in handles:
                handle.remove()

    def _run_to_end(self, ahead: Branch | None, batch: int, hidden: Tensor) -> Tensor:
        try:
            with _standing_in(ahead, batch):
                self.samples.run(self.module, self.index, hidden)
        except _Seen as reached:
            return reached.inputs  # type: ignore[no-any-return]
        raise AssertionError("a layer that closes a branch was not run")

    def _fits(self, work: LayerWork) -> bool:
        tokens = sum(mask.numel() for mask in self.samples.real[: self.samples.held_out_from])
        return tokens * (work.layer.columns + work.layer.rows) * self.samples.hidden[0].itemsize <= _KEPT_BYTES

    def _attended(self, layers: Sequence[LayerWork]) -> Branch | None:
        """The attention of this block, where `layers` come after it and what it gives is known."""
        if self._stream is None or not self._stream.attention().can_stand_in():
            return None
        later = set(self._stream.feed_forward().part.modules())
        return self._stream.attention() if all(work.module in later for work in layers) else None

    def forget(self) -> None:
        """Lets go of all that is kept of this block."""
        if self._stream is not None:
            self._stream.forget()

    @torch.inference_mode()
    def probe(self) -> Tensor:
        """Hidden states [tokens, width] of the first batch's real tokens that leave the block."""
        return self.samples.run(self.module, self.index, self.samples.hidden[0])[self.samples.real[0]]

    @torch.inference_mode()
    def advance(self, block: str) -> None:
        """Lets every batch flow through the block as it is now. Raises NumericError where it leaves as NaN."""
        stream = self._stream
        last = stream.feed_forward() if stream is not None and stream.feed_forward().holds() else None
        ahead = None if stream is None or last is not None else self._attended([])
        for batch, real in enumerate(self.samples.real):
            known = batch < self.samples.held_out_from
            if last is not None and known:
                leaving = last.leaving(batch)
            else:
                with _standing_in(ahead if known else None, batch):
                    leaving = self.samples.run(self.module, self.index, self.samples.hidden[batch])
            wrong = int((~torch.isfinite(leaving[real])).sum())
            if wrong:
                raise NumericError(f"{block}: {wrong} of its output values are NaN or infinite on calibration tokens")
            self.samples.hidden[batch] = leaving

    def _batches(self, held_out: bool) -> list[tuple[Tensor, Tensor]]:
        border = self.samples.held_out_from
        chosen = slice(border, None) if held_out else slice(0, border)
        return list(zip(self.samples.hidden[chosen], self.samples.real[chosen], strict=True))

    def _watch(self, work: LayerWork, visitor: Visitor, current: list[Tensor]) -> Any:
        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            visitor(work.name, _taken(inputs[0], current[0]))
            self._pending.discard(work.name)
            if not self._pending:
                raise _Seen

        return work.module.register_forward_pre_hook(before, prepend=True)


def _taken(values: Tensor, real: Tensor) -> Tensor:
    """The rows of `values` that stand for real tokens: [tokens, columns]."""
    flat = values.reshape(-1, values.shape[-1])  # mixtures of experts give their layers one row a token
    padded = len(flat) == real.numel() and not bool(real.all())  # without padding nothing is copied
    return flat[real.reshape(-1)] if padded else flat


def _standing_in(branch: Branch | None, batch: int) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if branch is None else branch.standing_in(batch)
