"""How the decoder blocks of a model are called and what they give back: learned from one real call, whatever the
architecture, so that hidden states can be led past a block, or into it, without knowing its code."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.models.foreign import FOREIGN, reason

_HIDDEN_NAMES = ("hidden_states", "hidden", "input", "x")


class UnusualBlocks(ModelError):
    """The blocks of a model cannot be run one after the other on hidden states alone."""


class _Seen(Exception):
    """Ends the model's forward pass where nothing more is to be learned."""


@dataclass(frozen=True, slots=True, eq=False)
class BlockCall:
    """What a model hands a block beside the hidden states: positions, masks. `keyword` is the name under which the
    hidden states go where they are not the first positional argument."""

    positional: tuple[Any, ...]
    named: dict[str, Any]
    keyword: str = ""

    def run(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """Hidden states that leave the block."""
        if self.keyword:
            return hidden_of(module(*self.positional, **{**self.named, self.keyword: hidden}))
        return hidden_of(module(hidden, *self.positional, **self.named))


def split_call(positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[Tensor, BlockCall]:
    """The hidden states of a call and the rest of it. Raises UnusualBlocks where a block is called in another way."""
    if positional and isinstance(positional[0], Tensor):
        return positional[0], BlockCall(positional[1:], named)
    for name in _HIDDEN_NAMES:
        if isinstance(named.get(name), Tensor):
            rest = {key: value for key, value in named.items() if key != name}
            return named[name], BlockCall(positional, rest, name)
    raise UnusualBlocks("its blocks are called in a way that names no hidden states; qtool cannot run them apart")


def hidden_of(output: Any) -> Tensor:
    """The hidden states in what a block gives back."""
    first = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(first, Tensor):
        raise UnusualBlocks(f"its blocks give {type(first).__name__} and no hidden states; qtool cannot run them apart")
    return first


@contextlib.contextmanager
def run_apart(model: Any) -> Iterator[None]:
    """Raises UnusualBlocks for whatever the forward pass of `model` raises where its blocks are replaced or absent."""
    try:
        yield
    except FOREIGN as error:
        name = type(model).__name__
        raise UnusualBlocks(f"{name}: it cannot be run block by block ({reason(error)}); use method rtn") from error


class BlockForm:
    """What a block gives back beside hidden states, seen in one real run of `block` on `ids` [rows, tokens]."""

    def __init__(self, model: Any, block: nn.Module, ids: Tensor) -> None:
        seen: list[Any] = []
        original = block.forward

        def forward(*positional: Any, **named: Any) -> Any:
            seen.append(original(*positional, **named))
            raise _Seen

        with replaced_forward(block, forward), contextlib.suppress(_Seen), torch.inference_mode():
            model(ids, use_cache=False)
        if not seen:
            raise UnusualBlocks(f"{type(model).__name__}: its forward pass never calls its first block")
        self._output = seen[0]
        hidden_of(self._output)

    @property
    def extras(self) -> tuple[Tensor, ...]:
        """Tensors that a block gives beside the hidden states."""
        rest = self._output[1:] if isinstance(self._output, tuple | list) else ()
        return tuple(entry for entry in rest if isinstance(entry, Tensor))

    def like(self, hidden: Tensor) -> Any:
        """`hidden` in the form a block gives it back."""
        if isinstance(self._output, tuple | list):
            return type(self._output)((hidden, *self._output[1:]))
        return hidden

    def refuse_passed_on(self, name: str, calls: list[BlockCall]) -> None:
        """Raises UnusualBlocks where the next block is given what the first gave beside the hidden states: blocks that
        talk to each other cannot be run one after the other on hidden states alone."""
        own = {id(extra) for extra in self.extras}
        for call in calls[1:]:
            if any(id(value) in own for value in (*call.positional, *call.named.values())):
                raise UnusualBlocks(
                    f"{name}: its blocks hand each other more than hidden states, so it cannot be run block by block; "
                    "use method rtn, which runs none"
                )


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """`forward` instead of the module's own for the duration."""
    held: Any = module
    held.forward = forward
    try:
        yield
    finally:
        del held.forward  # the instance attribute; the class's own forward shows again
