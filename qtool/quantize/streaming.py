"""A model run from disk: weights are read block by block and given back, so that memory holds one block at a time."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.models.architecture import Architecture, describe_model
from qtool.models.checkpoint import Checkpoint
from qtool.models.completeness import shared_names
from qtool.models.device import computed_in
from qtool.models.skeleton import empty_model
from qtool.models.stored_format import read_weight, stored_formats
from qtool.models.stored_names import StoredNames, open_as_used
from qtool.models.stored_weights import StoredFormat, dequantize
from qtool.models.unfolded import unfold
from qtool.quantize.activations import quantize_inputs


@dataclass(frozen=True, slots=True, eq=False)
class BlockCall:
    """What a model hands a block beside the hidden states: positions, masks."""

    positional: tuple[Any, ...]
    named: dict[str, Any]

    def run(self, module: nn.Module, hidden: Tensor) -> Tensor:
        """Hidden states that leave the block."""
        output = module(hidden, *self.positional, **self.named)
        hidden_out: Tensor = output[0] if isinstance(output, tuple) else output
        return hidden_out


class StreamedModel:
    """The model of a folder, quantized or not: structure in memory, weights on disk until they are needed. Every matrix
    is a linear layer of its own (see `unfold`), `checkpoint` has the model's names and `names` those of the files.
    `dtype` is what it computes in; None chooses."""

    def __init__(self, folder: Path, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        self.model: Any = unfold(empty_model(folder))
        self._shared = shared_names(self.model)
        self.checkpoint: Checkpoint
        self.names: StoredNames
        self.checkpoint, self.names = open_as_used(folder, self.model)
        self.architecture: Architecture = describe_model(self.model)
        self.formats: dict[str, StoredFormat] = stored_formats(self.checkpoint, self.architecture.linears)
        self.device = device or torch.device("cpu")
        self.dtype = dtype or computed_in(self.checkpoint.main_dtype(), self.device)

    def block(self, index: int) -> nn.Module:
        """Decoder block `index`, as a module."""
        module: nn.Module = self.model.get_submodule(self.architecture.blocks[index])
        return module

    @contextlib.contextmanager
    def loaded_block(self, index: int) -> Iterator[nn.Module]:
        """Decoder block `index` with its weights in memory, which are given back at the end."""
        name, module = self.architecture.blocks[index], self.block(index)
        self._fill(module, name + ".")
        handles = self._input_rounding(index)
        try:
            yield module
        finally:
            for handle in handles:
                handle.remove()
            empty(module)

    def load_outside(self) -> None:
        """Puts every weight that lies outside the blocks into memory: embeddings, final norm, head."""
        inside = tuple(block + "." for block in self.architecture.blocks)
        for name, parameter in list(self.model.named_parameters(remove_duplicate=False)):
            if parameter.is_meta and not name.startswith(inside):
                self._set(self.model, name, self._tensor(name))
        for name, buffer in list(self.model.named_buffers()):
            if not name.startswith(inside):
                self._set(self.model, name, buffer.to(self.device))

    @torch.inference_mode()
    def logits(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Logits [rows, tokens, vocabulary] in float32 for each batch of token ids [rows, tokens]; each block is read
        from disk once."""
        self.load_outside()
        blocks = range(len(self.architecture.blocks))
        given = [self._entering_blocks(ids.to(self.device)) for ids in batches]
        hidden = [entering for entering, _ in given]
        for index in blocks:
            with self.loaded_block(index) as module:
                hidden = [calls[index].run(module, state) for state, (_, calls) in zip(hidden, given, strict=True)]
        return [
            self._leaving_blocks(ids.to(self.device), state).float().cpu()
            for ids, state in zip(batches, hidden, strict=True)
        ]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [rows, tokens, vocabulary] of hidden states [rows, tokens, width] that left the last block. The
        weights outside the blocks must be in memory."""
        return self._leaving_blocks(torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device), hidden)

    def _entering_blocks(self, ids: Tensor) -> tuple[Tensor, list["BlockCall"]]:
        with self.loaded_block(0):
            return entering_blocks(self.model, self.architecture.blocks, ids)

    def _leaving_blocks(self, ids: Tensor, hidden: Tensor) -> Tensor:
        """Runs what follows the blocks by letting each block pass `hidden` on."""
        modules = [self.model.get_submodule(name) for name in self.architecture.blocks]
        with contextlib.ExitStack() as stack:
            for module in modules:
                stack.enter_context(_replaced_forward(module, lambda *_, **__: hidden))
            logits: Tensor = self.model(ids, use_cache=False).logits
        return logits

    def _input_rounding(self, index: int) -> list[Any]:
        handles = []
        for layer in self.architecture.in_block(index):
            form = self.formats.get(layer.name)
            if form is not None and form.activations != "none":
                scale = zero = None
                if form.activations == "static":
                    scale = self.checkpoint.tensor(f"{layer.name}.input_scale").reshape(1)
                    if f"{layer.name}.input_zero_point" in self.checkpoint.names:
                        zero = self.checkpoint.tensor(f"{layer.name}.input_zero_point").reshape(1)
                module, float8 = self.model.get_submodule(layer.name), form.packing == "float-quantized"
                handles.append(quantize_inputs(module, float8=float8, scale=scale, zero=zero))
        return handles

    def _fill(self, module: nn.Module, prefix: str) -> None:
        for name, _ in list(module.named_parameters()):
            self._set(module, name, self._tensor(prefix + name))
        for name, buffer in list(module.named_buffers()):
            persistent = prefix + name in self.checkpoint.names
            self._set(module, name, self._tensor(prefix + name) if persistent else buffer.to(self.device))

    def _tensor(self, name: str) -> Tensor:
        layer, _, leaf = name.rpartition(".")
        if leaf == "weight" and layer in self.formats:
            tensor = dequantize(read_weight(self.checkpoint, layer, self.formats[layer]))
        elif name in self.checkpoint.names:
            tensor = self.checkpoint.tensor(name)
        else:  # tied to one that is stored, or checkpoint.tensor says that there is none
            stored = sorted(self._shared.get(name, frozenset()) & set(self.checkpoint.names))
            tensor = self.checkpoint.tensor(stored[0] if stored else name)
        return tensor.to(device=self.device, dtype=self.dtype if tensor.is_floating_point() else None)

    def _set(self, module: nn.Module, name: str, tensor: Tensor) -> None:
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        held = getattr(owner, leaf)
        if tuple(held.shape) != tuple(tensor.shape):
            raise ModelError(
                f"{self.checkpoint.folder}: {name!r} is {tuple(tensor.shape)} where {tuple(held.shape)} is expected"
            )
        if isinstance(held, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        setattr(owner, leaf, tensor)


class _Seen(Exception):
    pass


def entering_blocks(model: Any, blocks: Sequence[str], ids: Tensor) -> tuple[Tensor, list["BlockCall"]]:
    """Hidden states that enter the first block for token ids [rows, tokens], and what else the model calls each block
    with. The first block must have its weights; the others are not run."""
    modules = [model.get_submodule(name) for name in blocks]
    calls = [BlockCall((), {}) for _ in modules]
    entering: list[Tensor] = []
    passes_tuple = _passes_tuple(model, modules[0], ids[:1, :2])  # two tokens: the block is not run on all for this

    def record(index: int) -> Any:
        def forward(hidden: Tensor, *positional: Any, **named: Any) -> Any:
            calls[index] = BlockCall(positional, named)
            if index == 0:
                entering.append(hidden)
            if index == len(modules) - 1:
                raise _Seen
            return (hidden,) if passes_tuple else hidden

        return forward

    with contextlib.ExitStack() as stack:
        for index, module in enumerate(modules):
            stack.enter_context(_replaced_forward(module, record(index)))
        with contextlib.suppress(_Seen):
            model(ids, use_cache=False)
    return entering[0], calls


def _passes_tuple(model: Any, block: nn.Module, ids: Tensor) -> bool:
    found: list[bool] = []
    original = block.forward

    def forward(*positional: Any, **named: Any) -> Any:
        found.append(isinstance(original(*positional, **named), tuple))
        raise _Seen

    with _replaced_forward(block, forward), contextlib.suppress(_Seen):
        model(ids, use_cache=False)
    return found[0]


def empty(module: nn.Module) -> None:
    """Gives back the memory of every weight in `module`."""
    for parameter_name, parameter in list(module.named_parameters()):
        owner, _, leaf = parameter_name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))


@contextlib.contextmanager
def _replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    held: Any = module
    held.forward = forward
    try:
        yield
    finally:
        del held.forward
