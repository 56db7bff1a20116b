"""Where a block adds to its residual stream, so that the layer that adds can make up for all that the stream lacks.

Arai and Ichikawa (arXiv 2504.09629) let a layer make up for the drift of its own inputs. The output of a layer that
closes a residual branch is added to a stream that has drifted too, by what every layer before it did; it can make up
for that as well, as far as its inputs tell of it.

A block that plainly adds need not be run from its beginning each time either: what comes after a branch whose layers
are settled follows from the inputs of the layer that closed it.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qtool.quantize.contract import LayerWork

_MIDDLE = ("pre_feedforward_layernorm", "post_attention_layernorm")  # the norm that reads the stream in mid-block
_ATTENTION, _FEED_FORWARD = "o_proj", "down_proj"


@dataclass(slots=True, eq=False)
class Stream:
    """The stream of one block while it runs: `middle`, the norm between its two branches, and the two branches by the
    last part of the name of the layer that closes them; `states` what that norm saw a batch."""

    middle: nn.Module
    branches: Mapping[str, "Branch"]
    states: list[Tensor] = field(default_factory=list)

    def watch(self) -> list[Any]:
        """Notes states from now on, and what the branches give for the first batch; returns the handles that end it."""
        noting = [handle for branch in self.branches.values() for handle in branch.watch()]
        return [*noting, self.middle.register_forward_pre_hook(lambda _, inputs: self.states.append(inputs[0]))]

    def adds(self, entering: Tensor, leaving: Tensor) -> bool:
        """Whether both branches are plainly added to the stream, to the last bit; of the first batch, before and after
        the block."""
        outputs = {leaf: branch.take_output() for leaf, branch in self.branches.items()}
        if not self.states or any(output is None for output in outputs.values()):
            return False
        attended, fed = outputs[_ATTENTION], outputs[_FEED_FORWARD]
        assert attended is not None  # all were asked just now
        assert fed is not None
        return _sum_is(entering, attended, self.states[0]) and _sum_is(self.states[0], fed, leaving)

    def forget(self) -> None:
        """Lets go of what was kept of the block."""
        self.states.clear()
        for branch in self.branches.values():
            branch.forget()

    def attention(self) -> "Branch":
        """The first of the two."""
        return self.branches[_ATTENTION]

    def feed_forward(self) -> "Branch":
        """The second of the two."""
        return self.branches[_FEED_FORWARD]


class Branch:
    """A residual branch: `closing`, the layer whose output is added to the stream, and `part`, the child of the block
    that it lies in. Keeps the inputs of `closing`, and the stream they are added to, for as long as they stay true."""

    def __init__(self, closing: nn.Module, part: nn.Module, block: nn.Module, *, after: Sequence[nn.Module]) -> None:
        self.closing: Any = closing
        self.part: Any = part
        self._block = block
        self._after = (closing, *after)
        self._first: list[Any] = []  # what closing and part gave for the first batch
        self._beside: tuple[None, ...] | None = None  # what part gives beside that: nothing, or a tuple of nothing
        self._plain = False
        self._inputs: list[Tensor] = []
        self._before: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def watch(self) -> list[Any]:
        """Notes what the branch gives for the first batch; returns the handles that end it."""

        def note(_: nn.Module, __: Any, given: Any) -> None:  # a hook that returned something would replace it
            if len(self._first) < 2:
                self._first.append(given)

        return [self.closing.register_forward_hook(note), self.part.register_forward_hook(note)]

    def take_output(self) -> Tensor | None:
        """What `closing` gave for the first batch, once; None where it was not run."""
        if len(self._first) < 2:
            return None
        (output, given), self._first = self._first, []
        given, beside = (given[0], given[1:]) if isinstance(given, tuple) else (given, None)
        self._plain = given is output and self.part is not self.closing and not any(x is not None for x in beside or ())
        self._beside = None if beside is None else (None,) * len(beside)
        return output  # type: ignore[no-any-return]

    def remember(self, inputs: Tensor, before: Tensor) -> None:
        """Keeps the inputs of `closing` for the next batch, and the stream that its output is added to."""
        if not self._inputs:
            self._weights = self._weights_before()
        self._inputs.append(inputs)
        self._before.append(before)

    def holds(self) -> bool:
        """Whether what was kept is still what the branch gives: no weight that it follows from was replaced since."""
        now = self._weights_before() + ([self.closing.weight] if self._outputs else [])
        same = len(now) == len(self._weights) and all(map(_is, now, self._weights))
        return same and bool(self._inputs or self._outputs)

    def leaving(self, batch: int) -> Tensor:
        """The stream after the branch, with `closing` as it is now."""
        return self._before[batch] + self.closing(self._inputs[batch])  # type: ignore[no-any-return]

    def can_stand_in(self) -> bool:
        """Whether what `part` gives follows from what was kept."""
        return self._plain and self.holds()

    @contextlib.contextmanager
    def standing_in(self, batch: int) -> Iterator[None]:
        """Lets `part` give what follows from the inputs kept for `batch`, without running what comes before. Its layers
        must be settled: from now on outputs are kept in place of inputs."""
        if not self._outputs:
            self._outputs = [self.closing(inputs) for inputs in self._inputs]
            self._weights.append(self.closing.weight)
            self._inputs.clear()
            self._before.clear()
        output = self._outputs[batch]
        given = output if self._beside is None else (output, *self._beside)
        self.part.forward = lambda *_, **__: given
        try:
            yield
        finally:
            del self.part.forward

    def forget(self) -> None:
        """Lets go of what was kept."""
        self._first, self._inputs, self._before, self._weights, self._outputs = [], [], [], [], []

    def _weights_before(self) -> list[Tensor]:
        left_out = {id(weight) for module in self._after for weight in module.parameters()}
        return [weight for weight in self._block.parameters() if id(weight) not in left_out]


def stream_of(block: nn.Module, layers: Sequence[LayerWork]) -> Stream | None:
    """The residual stream of a block, or None where it is not built as its names would say."""
    middle = next((norm for name in _MIDDLE if isinstance(norm := getattr(block, name, None), nn.Module)), None)
    closing = {leaf: [work.module for work in layers if leaf_of(work) == leaf] for leaf in (_ATTENTION, _FEED_FORWARD)}
    if middle is None or any(len(found) != 1 for found in closing.values()):  # experts have many
        return None
    (first,), (second,) = closing.values()
    parts = [_child_with(block, module) for module in (first, second)]
    branches = {
        _ATTENTION: Branch(first, parts[0], block, after=[parts[1]]),
        _FEED_FORWARD: Branch(second, parts[1], block, after=[]),
    }
    return Stream(middle, branches)


def leaf_of(work: LayerWork) -> str:
    """The last part of the layer's name."""
    return work.name.rpartition(".")[2]


def is_last(work: LayerWork) -> bool:
    """Whether a layer that closes a branch is the one whose sum leaves the block."""
    return leaf_of(work) == _FEED_FORWARD


def _child_with(block: nn.Module, module: nn.Module) -> nn.Module:
    return next(child for child in block.children() if any(part is module for part in child.modules()))


def _is(one: Tensor, other: Tensor) -> bool:
    return one is other


def _sum_is(stream: Tensor, added: Tensor, found: Tensor) -> bool:
    return stream.shape == added.shape == found.shape and torch.equal(stream + added, found)
