"""Runs a causal model one block at a time, so that the weights of one block are in memory, never those of the model.

What a block is given besides the hidden states (masks, positions, rotary tables) differs from architecture to
architecture. It is learned from the model's own forward pass: every block is replaced by one that notes its arguments
and hands the hidden states on, which costs an embedding look-up and needs no knowledge of the architecture.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.models.architecture import Architecture, describe_model
from qtool.models.block_form import BlockCall, BlockForm, run_apart, split_call
from qtool.models.checkpoint import is_quantized, open_checkpoint
from qtool.models.completeness import load_base
from qtool.models.skeleton import empty_model
from qtool.streaming.stored_tensors import StoredTensors


class _LastBlockReached(Exception):
    """Ends the model's forward pass where nothing more is to be learned."""


class _HeadReached(Exception):
    """Ends the model's forward pass before the output head, whose weights are then never needed."""


class BlockStream:
    """The blocks of the model in `folder`, computed in `dtype` on `device`.

    `streamed` says whether blocks are read from disk one by one; a checkpoint whose tensors StoredTensors cannot find
    is loaded whole instead.
    """

    def __init__(self, folder: Path, *, dtype: torch.dtype, device: torch.device) -> None:
        self._checkpoint = open_checkpoint(folder)
        if is_quantized(self._checkpoint.config):
            raise ModelError(f"{folder}: is a quantized checkpoint; calibrate the base model it was made from")
        self._checkpoint.refuse_nonfinite()
        self._dtype, self._device = dtype, device
        self._model: Any = empty_model(folder)
        self._stored = StoredTensors(self._model, self._checkpoint)
        self.streamed = self._stored.complete(self._model)
        if not self.streamed:
            self._model = load_base(folder, dtype=dtype, device=device)
        self.architecture: Architecture = describe_model(self._model)
        self.blocks: tuple[nn.Module, ...] = tuple(map(self._model.get_submodule, self.architecture.blocks))
        self._form: BlockForm | None = None
        self._arguments: dict[int, list[tuple[BlockCall, ...]]] = {}
        self._row_arguments: dict[int, tuple[BlockCall, ...]] = {}
        for module in self._model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.device.type != "meta":
                    setattr(module, name, buffer.to(device))

    @property
    def context_tokens(self) -> int | None:
        """Longest sequence the model was made for, if its config says so."""
        for name in ("max_position_embeddings", "n_positions"):
            if isinstance(limit := getattr(self._model.config, name, None), int):
                return limit
        return None

    @property
    def vocabulary(self) -> int:
        """Number of token ids the embedding has rows for."""
        return int(self._model.get_input_embeddings().weight.shape[0])

    @property
    def outside(self) -> dict[str, nn.Module]:
        """Linear layers that lie in no block, the output head among them."""
        return {
            layer.name: self._model.get_submodule(layer.name)
            for layer in self.architecture.linears
            if layer.block is None and not layer.beside_text
        }

    @contextlib.contextmanager
    def embedding(self) -> Iterator[Callable[[int, Tensor], Tensor]]:
        """A function from (row, token ids [1, tokens]) to the hidden states that enter the first block."""
        with self._with_blocks([self._noting(index) for index in range(len(self.blocks))]):
            yield self._embed

    @contextlib.contextmanager
    def ending(self) -> Iterator[Callable[[Tensor, Tensor], None]]:
        """A function from (token ids [1, tokens], output of the last block) that runs what lies outside of the blocks,
        up to the input of the output head; the head's own product is never made."""
        final: list[Tensor] = []

        def last(*positional: Any, **keywords: Any) -> Any:
            return self._like(final[0])

        def run(tokens: Tensor, hidden: Tensor) -> None:
            final[:] = [hidden.to(self._device)]
            with contextlib.suppress(_HeadReached), torch.inference_mode():
                self._model(input_ids=tokens.to(self._device), use_cache=False)

        head = self._model.get_submodule(self.architecture.head)
        with self._with_blocks([self._passing] * (len(self.blocks) - 1) + [last]):
            # hooks run in order of registration: whoever watches the head must hook it before this function is called
            handles: list[Any] = []

            def run_to_head(tokens: Tensor, hidden: Tensor) -> None:
                if not handles:
                    handles.append(head.register_forward_pre_hook(_stop))
                run(tokens, hidden)

            try:
                yield run_to_head
            finally:
                for handle in handles:
                    handle.remove()

    @contextlib.contextmanager
    def block(self, index: int) -> Iterator[Callable[[int, Tensor], Tensor]]:
        """A function from (row, hidden states) to the output of block `index`, whose weights live as long as this."""
        module = self.blocks[index]
        with self._filled(module, recurse=True):

            def run(row: int, hidden: Tensor) -> Tensor:
                with torch.inference_mode():
                    return self._row_arguments[row][index].run(module, hidden.to(self._device))

            yield run

    def _embed(self, row: int, tokens: Tensor) -> Tensor:
        tokens = tokens.to(self._device)
        self._noted: list[BlockCall] = []
        self._entering: Tensor | None = None
        with run_apart(self._model):
            if self._form is None or self._form.extras:
                self._form = self._form_of(tokens[:, :2] if self._form is None else tokens)
                if self._form.extras:
                    self._form = self._form_of(tokens)
            with contextlib.suppress(_LastBlockReached), torch.inference_mode():
                self._model(input_ids=tokens, use_cache=False)
        name = type(self._model).__name__
        if self._entering is None or len(self._noted) != len(self.blocks):
            raise ModelError(f"{name}: its forward pass runs {len(self._noted)} of its {len(self.blocks)} blocks")
        self._form.refuse_passed_on(name, self._noted)
        self._row_arguments[row] = self._shared(tokens.shape[-1], tuple(self._noted))
        return self._entering

    def _form_of(self, tokens: Tensor) -> BlockForm:
        """What the first block gives for `tokens`: it alone is run for this, as it is."""
        block: Any = self.blocks[0]
        standing_in = block.__dict__.pop("forward")
        try:
            with self._filled(block, recurse=True):
                form = BlockForm(self._model, block, tokens)
        finally:
            block.forward = standing_in
        return form

    def _like(self, hidden: Tensor) -> Any:
        assert self._form is not None  # learned when the first row was embedded
        return self._form.like(hidden)

    def _noting(self, index: int) -> Callable[..., Any]:
        def forward(*positional: Any, **keywords: Any) -> Any:
            hidden, call = split_call(positional, keywords)
            if self._entering is None:
                self._entering = hidden
            self._noted.append(call)
            if index == len(self.blocks) - 1:
                raise _LastBlockReached
            return self._like(hidden)

        return forward

    def _shared(self, length: int, noted: tuple[BlockCall, ...]) -> tuple[BlockCall, ...]:
        """`noted`, or an equal one that a row of the same length has left: kept once, whatever the number of rows."""
        known = self._arguments.setdefault(length, [])
        for candidate in known:
            if all(map(_same_call, candidate, noted)):
                return candidate
        known.append(noted)
        return noted

    def _passing(self, *positional: Any, **keywords: Any) -> Any:
        return self._like(split_call(positional, keywords)[0])

    @contextlib.contextmanager
    def _with_blocks(self, forwards: list[Callable[..., Any]]) -> Iterator[None]:
        """The model with all weights outside of blocks and head in place, and `forwards` instead of the blocks' own."""
        outside = [module for name, module in self._model.named_modules() if not self._in_block_or_head(name)]
        with contextlib.ExitStack() as stack:
            for module in outside:
                stack.enter_context(self._filled(module, recurse=False))
            for block, forward in zip(self.blocks, forwards, strict=True):
                block.forward = forward
                stack.callback(_restore_forward, block)
            yield

    def _in_block_or_head(self, name: str) -> bool:
        return name == self.architecture.head or any(
            name == block or name.startswith(block + ".") for block in self.architecture.blocks
        )

    @contextlib.contextmanager
    def _filled(self, module: nn.Module, *, recurse: bool) -> Iterator[None]:
        """Gives `module` its weights for the duration."""
        if not self.streamed:
            yield
            return
        names = {entry: name for name, entry in self._model.named_modules()}
        owners = list(module.modules()) if recurse else [module]
        for owner in owners:
            for kind in (owner._parameters, owner._buffers):
                for leaf, tensor in list(kind.items()):
                    if tensor is not None and tensor.device.type == "meta":
                        stored = self._stored.tensor(f"{names[owner]}.{leaf}".lstrip("."), tensor.shape)
                        kind[leaf] = _like(
                            tensor, stored.to(self._device, self._dtype) if stored.is_floating_point() else stored
                        )
        try:
            yield
        finally:
            for owner in owners:
                for leaf, tensor in list(owner._parameters.items()):
                    if tensor is not None:
                        owner._parameters[leaf] = _like(tensor, torch.empty_like(tensor, device="meta"))


def _like(before: Tensor, values: Tensor) -> Any:
    return nn.Parameter(values, requires_grad=False) if isinstance(before, nn.Parameter) else values


def _stop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    raise _HeadReached


def _restore_forward(block: nn.Module) -> None:
    del block.forward  # the instance attribute; the class's own forward shows again


def _same_call(first: BlockCall, second: BlockCall) -> bool:
    return first.keyword == second.keyword and _equal(
        (first.positional, first.named), (second.positional, second.named)
    )


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and first.shape == second.shape and bool(torch.equal(first, second))
    if isinstance(first, tuple | list):
        return isinstance(second, type(first)) and len(first) == len(second) and all(map(_equal, first, second))
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(_equal(first[key], second[key]) for key in first)
        )
    return first is second or bool(first == second)
