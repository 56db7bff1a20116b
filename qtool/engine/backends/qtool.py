"""qtool's own engine: slot memory, ragged batches, quantized kernels.

What it does: runs a transformers model over packed tokens; requests join and leave at every step.
When to use it: always, for the local models it supports; it is the default.
What it costs: the weights in their stored form, plus key-value memory for what the running requests need.
When it fails: attention with scores of its own kind (ALiBi, chunked) or a recurrent state; `transformers` runs those.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from qtool.data.probe_text import probe_rows
from qtool.engine.contract import (
    Engine,
    EngineOptions,
    EngineStatus,
    GenerationRequest,
    Reading,
    Scored,
    ScoreRequest,
    TokenEvent,
)
from qtool.engine.grammar import Grammars
from qtool.engine.layers.attention import UnsupportedAttention
from qtool.engine.layers.network import PROBE_TOKENS, Network
from qtool.engine.layers.weights import LoadedModel, load_model
from qtool.engine.scheduling.memory import address_bytes, available_bytes
from qtool.engine.scheduling.requests import Limits, check_generation, check_score
from qtool.engine.scheduling.scheduler import Scheduler
from qtool.engine.scheduling.scoring import read, score
from qtool.engine.scheduling.slots import KeyValueSlots
from qtool.engine.scheduling.stop import Decode, folder_decode
from qtool.errors import CapacityError, RequestError
from qtool.machine.device import choose_device, choose_dtype
from qtool.models.checkpoint import read_config

_CHUNK_TOKENS = {"cpu": 512, "cuda": 4096}
_PIECE_TOKENS = 64  # of a prompt at once on a CPU: enough to keep it multiplying, few enough that prompts share them
_SMALLEST_CONTEXT = 64
_DEFAULT_CONTEXT = 4096
_CACHE_SHARE = 0.6  # of the memory left when the weights are in
_FRUGAL_BYTES = 256 << 20  # for keys and values of a frugal engine, besides half the size of its weights


def open_model(folder: Path, options: EngineOptions) -> Engine:
    """The model of `folder`; one whose attention cannot run over ragged rows is handed to `transformers`."""
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, read_config(folder), device)
    loaded = load_model(folder, dtype=dtype, device=device)
    try:
        return QtoolEngine(
            loaded.model,
            device=device,
            dtype=loaded.dtype,
            slots=options.slots,
            context_tokens=options.context_tokens,
            decode=folder_decode(folder),
            folder=folder,
            memory_bytes=int(available_bytes(device) * _CACHE_SHARE),
            loaded=loaded,
            probe=probe_of(folder, loaded.model),
            frugal=options.frugal,
        )
    except UnsupportedAttention as reason:
        from qtool.engine.backends import transformers as whole_model

        return whole_model.serve_model(loaded, folder, options, note=str(reason))


def probe_of(folder: Path, model: Any) -> tuple[int, ...]:
    """Plain text in tokens of the folder's own tokenizer, none where it has none."""
    rows = probe_rows(folder, int(model.config.get_text_config(decoder=True).vocab_size), tokens=PROBE_TOKENS)
    return rows[0] if rows else ()


class QtoolEngine:
    """One model ready to answer. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device,
        dtype: torch.dtype,
        slots: int = 32,
        context_tokens: int | None = None,
        decode: Decode | None = None,
        folder: Path | None = None,
        memory_bytes: int | None = None,
        loaded: LoadedModel | None = None,
        probe: Sequence[int] = (),
        frugal: bool = False,
    ) -> None:
        self._network = Network(model, device=device, dtype=dtype, probe=probe)
        context, slots, room = _fit(self._network, slots, context_tokens, memory_bytes)
        self.kernels = loaded.kernels if loaded else ()
        self.weight_bytes = loaded.weight_bytes if loaded else 0
        if frugal and device.type == "cpu":  # not below one context: what fits in it must not depend on the weights
            room = min(room, max(context, (self.weight_bytes // 2 + _FRUGAL_BYTES) // _token_bytes(self._network)))
        self.simulated = loaded.simulated if loaded else False
        self.notes: tuple[str, ...] = ()
        self.device, self.dtype = str(device), str(dtype).removeprefix("torch.")
        self.cache_bytes = room * _token_bytes(self._network)
        self._limits = Limits(self._network.vocabulary, context, grammars=decode is not None and folder is not None)
        self._folder = folder
        self._grammars: Grammars | None = None
        self._slots = slots
        self._decode = decode
        self._chunk_tokens = _CHUNK_TOKENS.get(device.type, 512)
        memory = KeyValueSlots(
            self._network.shapes, slots=slots, context=context, dtype=dtype, device=device, room=room
        )
        self._scheduler: Scheduler | None = Scheduler(
            self._network,
            memory,
            chunk_tokens=self._chunk_tokens,
            piece_tokens=_PIECE_TOKENS if device.type == "cpu" else 0,
            decode=decode,
            device=device,
        )
        if device.type == "cpu" and (reason := self._scheduler.feeder.not_compiled):
            self.notes = (*self.notes, f"decoding steps go through the model's own forward: {reason}")

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]:
        """Log-likelihood of each continuation. Raises RequestError before anything is computed."""
        self._open()
        for request in requests:
            check_score(request, self._limits)
        return score(self._network, requests, batch_tokens=self._chunk_tokens * 4)

    def read(self, request: ScoreRequest, places: Sequence[int], layers: Sequence[str]) -> Reading:
        """Distributions and layer inputs of one teacher-forced pass. Raises RequestError before anything runs."""
        self._open()
        check_score(request, self._limits)
        return read(self._network, request, places=places, layers=layers)

    def submit(self, request: GenerationRequest) -> int:
        """The number its events will carry. Raises RequestError for this request alone."""
        check_generation(request, self._limits)
        if request.stop and self._decode is None:
            raise RequestError("stop strings need a tokenizer, and this model folder has none; use stop_ids")
        matcher = None
        if request.grammar is not None:
            if self._grammars is None:
                assert self._folder is not None  # checked: limits.grammars
                self._grammars = Grammars.of_folder(self._folder, self._network.vocabulary)
            matcher = self._grammars.matcher(request.grammar)
        return self._open().submit(request, matcher)

    def step(self) -> list[TokenEvent]:
        """Advances every running request by at most one token."""
        return self._open().step()

    def abort(self, request: int) -> None:
        """Ends a request at the next step; one that has ended already is left alone."""
        self._open().abort(request)

    def status(self) -> EngineStatus:
        """How many run and wait, and what fits."""
        scheduler = self._open()
        return EngineStatus(
            running=scheduler.running,
            waiting=scheduler.waiting,
            slots_free=scheduler.free_slots,
            slots=self._slots,
            context_tokens=self._limits.context_tokens,
            vocabulary=self._limits.vocabulary,
            kept_tokens=scheduler.kept_tokens,
            room_tokens=scheduler.room_tokens,
            prompt_tokens=scheduler.prompt_tokens,
            reused_tokens=scheduler.reused_tokens,
        )

    def close(self) -> None:
        """Frees weights and memory; every later call but `close` is refused."""
        self._scheduler = None
        self.__dict__.pop("_network", None)

    def _open(self) -> Scheduler:
        if self._scheduler is None:
            raise RequestError("the engine is closed")
        return self._scheduler


def _token_bytes(network: Network) -> int:
    """Key-value memory of one token in all layers."""
    width = torch.finfo(network.dtype).bits // 8
    return sum(shape.heads * (shape.key_width + shape.value_width) * width for shape in network.shapes.values())


def _fit(network: Network, slots: int, context: int | None, memory_bytes: int | None) -> tuple[int, int, int]:
    """Context, slots, and tokens that all slots together may hold. A context nobody asked for by name shrinks until one
    sequence fits; slots shrink where all their memory is taken at once, or addresses are limited.

    Raises CapacityError when one slot does not fit.
    """
    longest = network.longest_context()
    if context is not None and context > longest:
        raise CapacityError(f"context_tokens={context} is more than the {longest} positions the model was made for")
    tokens = context if context is not None else min(longest, _DEFAULT_CONTEXT)
    if memory_bytes is None:
        return tokens, slots, slots * tokens
    lazy = network.device.type == "cpu"
    cells = memory_bytes // max(_token_bytes(network), 1)
    if context is None:
        while tokens > _SMALLEST_CONTEXT and cells < tokens * (1 if lazy else min(slots, 4)):
            tokens = max(tokens // 2, _SMALLEST_CONTEXT)
    if cells < tokens:
        raise CapacityError(
            f"key-value memory for one sequence of {tokens} tokens needs {tokens * _token_bytes(network):,} bytes; "
            f"{memory_bytes:,} are left; ask for a smaller context or a smaller model"
        )
    if not lazy or address_bytes() is not None:
        slots = max(1, min(slots, cells // tokens))
    return tokens, slots, min(cells, slots * tokens)
