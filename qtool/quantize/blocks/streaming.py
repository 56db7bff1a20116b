"""A model run from disk: weights are read block by block and given back, so that memory holds one block at a time."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtool.errors import ModelError
from qtool.formats.stored_format import read_weight, stored_formats
from qtool.formats.stored_weights import StoredFormat, dequantize
from qtool.formats.tensor_names import StoredNames, open_as_used
from qtool.machine.device import computed_in
from qtool.models.architecture import Architecture, describe_model
from qtool.models.block_form import BlockCall, BlockForm, UnusualBlocks, replaced_forward, run_apart, split_call
from qtool.models.checkpoint import Checkpoint
from qtool.models.completeness import shared_names
from qtool.models.skeleton import empty_model
from qtool.models.unfolded import unfold
from qtool.quantize.rounding.activations import quantize_inputs


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
        self._form: BlockForm | None = None

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
            if not name.startswith(inside) and not buffer.is_meta:  # one of a tower is not computed with
                self._set(self.model, name, buffer.to(self.device))

    @torch.inference_mode()
    def logits(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """Logits [rows, tokens, vocabulary] in float32 for each batch of token ids [rows, tokens]; each block is read
        from disk once for all of them, or once for each where the blocks hand on more than hidden states."""
        self.load_outside()
        batches = [ids.to(self.device) for ids in batches]
        try:
            with self.loaded_block(0):
                entering = [entering_blocks(self.model, self.architecture.blocks, ids) for ids in batches]
        except UnusualBlocks:
            return self._whole_passes(batches)
        if any(form.extras for _, _, form in entering):
            return self._whole_passes(batches)
        hidden = [state for state, _, _ in entering]
        for index in range(len(self.architecture.blocks)):
            with self.loaded_block(index) as module:
                hidden = [
                    calls[index].run(module, state) for state, (_, calls, _) in zip(hidden, entering, strict=True)
                ]
        return [
            self._leaving_blocks(ids, form.like(state)).float().cpu()
            for ids, state, (_, _, form) in zip(batches, hidden, entering, strict=True)
        ]

    def _leaving_blocks(self, ids: Tensor, output: Any) -> Tensor:
        """Runs what follows the blocks by letting each give `output`."""
        with contextlib.ExitStack() as stack:
            for index in range(len(self.architecture.blocks)):
                stack.enter_context(replaced_forward(self.block(index), lambda *_, **__: output))
            logits: Tensor = self.model(ids, use_cache=False).logits
        return logits

    def _whole_passes(self, batches: Sequence[Tensor]) -> list[Tensor]:
        """The model's own forward pass for each batch; a block is in memory while the pass is in it."""
        with contextlib.ExitStack() as stack:
            for index in range(len(self.architecture.blocks)):
                block = self.block(index)
                stack.enter_context(replaced_forward(block, self._read_for_one_call(index, block.forward)))
            return [self.model(ids, use_cache=False).logits.float().cpu() for ids in batches]

    @torch.inference_mode()
    def head(self, hidden: Tensor) -> Tensor:
        """Logits [rows, tokens, vocabulary] of hidden states [rows, tokens, width] that left the last block. The
        weights outside the blocks must be in memory."""
        ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        if self._form is None:
            with self.loaded_block(0) as block:
                self._form = BlockForm(self.model, block, ids[:1, :1])
        passed = self._form.like(hidden)
        with contextlib.ExitStack() as stack:
            for index in range(len(self.architecture.blocks)):
                stack.enter_context(replaced_forward(self.block(index), lambda *_, **__: passed))
            logits: Tensor = self.model(ids, use_cache=False).logits
        return logits

    def _read_for_one_call(self, index: int, original: Any) -> Any:
        def forward(*positional: Any, **named: Any) -> Any:
            with self.loaded_block(index):
                return original(*positional, **named)

        return forward

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


_HIDDEN_DIMENSIONS = 3  # rows, tokens, width


class _Seen(Exception):
    pass


def entering_blocks(model: Any, blocks: Sequence[str], ids: Tensor) -> tuple[Tensor, list[BlockCall], BlockForm]:
    """Hidden states that enter the first block for token ids [rows, tokens], what else the model calls each block
    with, and the form in which it takes them back. The first block must have its weights; the others are not run."""
    modules = [model.get_submodule(name) for name in blocks]
    calls: list[BlockCall] = []
    entering: list[Tensor] = []
    form = BlockForm(model, modules[0], ids[:1, :2])  # two tokens: the block is not run on all for this
    if form.extras:
        form = BlockForm(model, modules[0], ids)

    def forward(*positional: Any, **named: Any) -> Any:
        hidden, call = split_call(positional, named)
        entering.append(hidden)
        calls.append(call)
        if len(calls) == len(modules):
            raise _Seen
        return form.like(hidden)

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.enter_context(replaced_forward(module, forward))
        with run_apart(model), contextlib.suppress(_Seen):
            model(ids, use_cache=False)
    name = type(model).__name__
    if any(hidden.dim() != _HIDDEN_DIMENSIONS for hidden in entering):
        raise UnusualBlocks(f"{name}: its blocks hand on more than one hidden state a token; use method rtn")
    if len(calls) != len(modules):
        raise UnusualBlocks(f"{name}: its forward pass runs {len(calls)} of its {len(modules)} blocks; use method rtn")
    form.refuse_passed_on(name, calls)
    return entering[0], calls, form


def empty(module: nn.Module) -> None:
    """Gives back the memory of every weight in `module`."""
    for parameter_name, parameter in list(module.named_parameters()):
        owner, _, leaf = parameter_name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, nn.Parameter(parameter.detach().to("meta"), requires_grad=False))
