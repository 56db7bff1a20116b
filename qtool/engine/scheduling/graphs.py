"""Decoding on a CUDA device without launching kernels one by one: a graph captured for each size of batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qtool.engine.scheduling.ragged import Block, Row, Step
from qtool.engine.scheduling.slots import KeyValueSlots

BUCKETS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
_LENGTH_STEP = 256
_WARM_UPS = 2


def batch_bucket(rows: int) -> int | None:
    """The smallest captured batch that holds `rows`; None where it is larger than any."""
    return next((bucket for bucket in BUCKETS if rows <= bucket), None)


def length_bucket(length: int, context: int) -> int:
    """How many keys a graph for rows of `length` looks at: doubling from 256, at most the context."""
    bucket = _LENGTH_STEP
    while bucket < length:
        bucket *= 2
    return min(bucket, context)


Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]


@dataclass(slots=True, eq=False)
class StaticDecode:
    """One captured batch: its inputs are overwritten in place before each replay.

    Rows are slots 0..size-1 in order; a slot that does not decode feeds token 0 at the last position of its own slot,
    which its owner never reaches before writing it, so that nobody's keys change. `step` and `keep` are never read here
    again, but a graph reads their memory at every replay: it must not be given to anything else.
    """

    size: int
    length: int
    ids: Tensor
    positions: Tensor
    step: Step
    keep: Tensor
    logits: Tensor
    replay: Callable[[], None]


def static_decode(size: int, length: int, context: int, *, dtype: torch.dtype, device: torch.device) -> StaticDecode:
    """A batch of `size` parked rows, with nothing captured yet."""
    positions = torch.full((size,), context - 1, dtype=torch.long, device=device)
    block = Block(
        first=0,
        size=size,
        width=1,
        length=length,
        gather=None,
        scatter=None,
        tokens=slice(0, size),
        query_positions=positions[:, None],
        causal=False,
        full=False,
        masks={None: torch.zeros(size, 1, 1, length, dtype=dtype, device=device)},
    )
    slots = torch.arange(size, device=device)
    step = Step(size, positions, slots, (block,))
    ids = torch.zeros(size, dtype=torch.long, device=device)
    keep = torch.arange(size, device=device)
    return StaticDecode(size, length, ids, positions, step, keep, torch.empty(0, device=device), lambda: None)


class GraphedDecoder:
    """Replays a decode step for rows that are all of one token; captures a graph at the first use of a size."""

    def __init__(self, network: Any, memory: KeyValueSlots, capture: Capture | None = None) -> None:
        self._network = network
        self._memory = memory
        self._captured: dict[tuple[int, int], StaticDecode] = {}
        on_cuda = network.device.type == "cuda"
        self._capture = capture or (CudaCapture(network.device) if on_cuda else None)
        self.usable = self._capture is not None

    @torch.inference_mode()
    def decode(self, rows: list[Row], tokens: list[int]) -> Tensor | None:
        """Logits [rows, vocabulary] of one token a row, or None where no graph fits and the plain way must be used."""
        bucket = batch_bucket(max(row.slot for row in rows) + 1)
        if not self.usable or bucket is None:
            return None
        size = min(bucket, self._memory.slots)
        length = length_bucket(max(row.end for row in rows), self._memory.context)
        captured = self._captured.get((size, length))
        if captured is None:
            try:
                captured = self._captured[size, length] = self._record(size, length)
            except RuntimeError:  # an operator that cannot be captured, or no memory for one more graph
                self.usable = False
                return None
        fill(captured, rows, tokens, self._memory.context)
        captured.replay()
        slots = torch.tensor([row.slot for row in rows], device=captured.logits.device)
        return captured.logits.index_select(0, slots)

    def _record(self, size: int, length: int) -> StaticDecode:
        network, memory = self._network, self._memory
        static = static_decode(size, length, memory.context, dtype=network.dtype, device=network.device)

        def run() -> Tensor:
            return network.forward(static.ids, static.step, memory, static.keep)  # type: ignore[no-any-return]

        assert self._capture is not None
        static.replay, static.logits = self._capture(run)
        return static


class CudaCapture:
    """Records what a function launches. All graphs share one pool: they run one after another, never two at once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """What replays `run`, and where its result then lies."""
        with torch.cuda.device(self._device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):  # compiles, allocates workspaces and builds masks, which a capture must not
                    run()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                result = run()
        return graph.replay, result


def fill(static: StaticDecode, rows: list[Row], tokens: list[int], context: int) -> None:
    """Writes the rows' tokens, positions and masks into a captured batch; other slots are parked."""
    ids, positions = [0] * static.size, [context - 1] * static.size
    for row, token in zip(rows, tokens, strict=True):
        ids[row.slot] = token
        positions[row.slot] = row.start
    where = torch.tensor([ids, positions], device=static.ids.device)
    static.ids.copy_(where[0])
    static.positions.copy_(where[1])
    keys = torch.arange(static.length, device=static.ids.device)[None, :]
    queries = where[1][:, None]
    for window, mask in static.step.blocks[0].masks.items():  # those of sliding windows are made by the first run
        if mask is not None:
            hidden = keys > queries
            if window is not None and window < static.length:
                hidden |= keys <= queries - window
            lowest = max(torch.finfo(torch.float32).min, torch.finfo(mask.dtype).min)
            mask.zero_().masked_fill_(hidden[:, None, None, :], lowest)
