"""The pass over the rows: block after block, each block's statistics written to disk as soon as they are whole."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qtool.calibrate.passes.collect import Collector
from qtool.calibrate.passes.experts import ExpertCounter, expert_modules
from qtool.calibrate.passes.stored_rows import StoredRows
from qtool.calibrate.statistics.activations import Activations, activations
from qtool.calibrate.statistics.inputs import INPUTS_ONLY, Group, Kept
from qtool.calibrate.statistics.inputs_file import BlockStatistics, write_statistics
from qtool.progress import Advance, Progress
from qtool.streaming.block_stream import BlockStream

OUTSIDE = "outside"  # part of the linear layers that lie in no block


@dataclass(frozen=True, slots=True)
class Work:
    """What one pass is to see: `groups` of rows of `sequences`, and the drawn tokens of each row; `kept` is what it
    keeps of single columns, `outputs` are the layers whose outputs it watches too."""

    sequences: StoredRows
    groups: tuple[Group, ...]
    draws: Mapping[int, Mapping[int, float]]
    kept: Kept = INPUTS_ONLY
    outputs: frozenset[str] = frozenset()

    def rows(self) -> Iterator[tuple[int, Group, Tensor]]:
        """Row, its group and its token ids [1, tokens], group after group."""
        for group in self.groups:
            for row in group.rows:
                yield row, group, torch.from_numpy(self.sequences.ids(row)).long().unsqueeze(0)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(self.sequences.length(row) for group in self.groups for row in group.rows)


def part_names(blocks: int) -> tuple[str, ...]:
    """Names of the parts a pass is made of: the blocks in order, then what lies outside of them."""
    return (*(f"{index:04d}" for index in range(blocks)), OUTSIDE)


def part_file(folder: Path, part: str) -> Path:
    """Where the statistics of `part` lie in a calibration that is not finished, or in a shard."""
    return folder / "parts" / f"{part}.safetensors"


def collect(stream: BlockStream, work: Work, folder: Path, *, activation_bytes: int, progress: Progress) -> None:
    """Writes the statistics of every part of the model into `folder`; parts that lie there already are kept.

    Raises NumericError naming layer and row when an input is not finite, StoreError when the disk is full.
    """
    parts = part_names(len(stream.blocks))
    missing = [part for part in parts if not part_file(folder, part).is_file()]
    if not missing:
        return
    if len(missing) < len(parts):
        progress.note(f"calibrate: {len(parts) - len(missing)} of {len(parts)} parts are done, resuming")
    total = work.tokens * len(parts)
    with (
        activations(activation_bytes, folder / "activations.bin") as hidden,
        progress.track("calibrate", total, "tokens") as advance,
    ):
        _embed(stream, work, hidden)
        for index, part in enumerate(parts[:-1]):
            _run_block(stream, index, work, hidden, folder, watch=part in missing, advance=advance)
        _run_outside(stream, work, hidden, folder, advance=advance)


def _embed(stream: BlockStream, work: Work, hidden: Activations) -> None:
    with stream.embedding() as embed:
        for row, _, tokens in work.rows():
            hidden.put(row, embed(row, tokens))


def _run_block(
    stream: BlockStream,
    index: int,
    work: Work,
    hidden: Activations,
    folder: Path,
    *,
    watch: bool,
    advance: Advance,
) -> None:
    block, name = stream.blocks[index], stream.architecture.blocks[index]
    experts = expert_modules(block, name)
    layers: dict[str, nn.Module] = {
        layer.name: block.get_submodule(layer.name.removeprefix(f"{name}."))
        for layer in stream.architecture.in_block(index)
    }
    outputs = {layer: module for layer, module in layers.items() if watch and layer in work.outputs}
    collector = Collector({**layers, **experts} if watch else {}, kept=work.kept, outputs=outputs)
    counter = ExpertCounter(experts)

    def step(row: int, group: Group, tokens: Tensor) -> None:
        with _maybe(counter, watch and not group.held_out):
            hidden.put(row, run(row, hidden.get(row)))

    with stream.block(index) as run, collector.watching():
        _each_row(work, collector, step, advance)
    if watch:
        found = BlockStatistics(collector.finish(), collector.reads, counter.finish())
        write_statistics(part_file(folder, f"{index:04d}"), found)


def _run_outside(stream: BlockStream, work: Work, hidden: Activations, folder: Path, *, advance: Advance) -> None:
    collector = Collector(stream.outside, kept=work.kept)
    with stream.ending() as run, collector.watching():
        _each_row(work, collector, lambda row, group, tokens: run(tokens, hidden.get(row)), advance)
    write_statistics(part_file(folder, OUTSIDE), BlockStatistics(collector.finish(), collector.reads, {}))


def _each_row(work: Work, collector: Collector, step: Callable[[int, Group, Tensor], None], advance: Advance) -> None:
    for row, group, tokens in work.rows():
        step(row, group, tokens)
        collector.row(row, group, work.draws.get(row, {}), work.sequences.where(row))
        advance(tokens.numel())


def _maybe(counter: ExpertCounter, wanted: bool) -> contextlib.AbstractContextManager[None]:
    return counter.watching() if wanted else contextlib.nullcontext()
