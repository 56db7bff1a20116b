"""From the statistics of all parts to a finished calibration folder: ranges, histograms, rows used, manifest last."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qtool import __version__
from qtool.calibrate.certificate import certify
from qtool.calibrate.observe import Asked, layer_range
from qtool.calibrate.statistics.inputs import Group, InputStatistics, NothingObserved
from qtool.calibrate.statistics.inputs_file import BlockStatistics
from qtool.data.sequences import TokenSequence
from qtool.records.calibration import Calibration, LayerRange, SourceCount
from qtool.records.histogram import Histogram
from qtool.records.model import ModelIdentity
from qtool.store import layout
from qtool.store.ranges_file import (
    Bounds,
    ChannelStatistics,
    Sequences,
    pad,
    write_histograms,
    write_ranges,
    write_sequences,
)
from qtool.store.run_directory import write_record


@dataclass(frozen=True, slots=True)
class Task:
    """What a calibration was asked to do and on which rows; the same for every shard of a set."""

    model: ModelIdentity
    set_name: str
    set_digest: str
    seed: int
    sequence_tokens: int
    packed: bool
    sources: tuple[SourceCount, ...]
    observers: tuple[str, ...]
    dtype: str
    streamed: bool
    outputs: tuple[str, ...] = ()
    chat: bool = False


def finish(
    folder: Path,
    task: Task,
    blocks: Sequence[BlockStatistics],
    *,
    asked: Sequence[Asked],
    groups: Sequence[Group],
    sequences: Sequence[TokenSequence],
    started: float,
) -> Calibration:
    """Writes everything into `folder` and returns the manifest; layers that saw no token have no range."""
    inputs = tuple(entry for block in blocks for entry in block.inputs)
    reads = {layer: source for block in blocks for layer, source in block.reads.items()}
    experts = {name: counts for block in blocks for name, counts in block.experts.items()}
    used = tuple(group for group in groups if not group.held_out)
    ranges, bounds = _ranges(inputs, asked, used, reads)
    write_ranges(folder, bounds, _channels(inputs), reads)
    write_histograms(folder, _histograms(inputs, used), reads)
    store_sequences(folder, sequences)
    certificate = certify(inputs, reads, experts, asked=asked, groups=groups, seed=task.seed)
    used_tokens = [len(sequence.tokens) for sequence in sequences if not sequence.held_out]
    calibration = Calibration(
        format_version=1,
        model=task.model,
        set_name=task.set_name,
        set_digest=task.set_digest,
        seed=task.seed,
        sequence_tokens=task.sequence_tokens,
        sequences=len(used_tokens),
        tokens=sum(used_tokens),
        packed=task.packed,
        sources=task.sources,
        observers=task.observers,
        ranges=ranges,
        qtool_version=__version__,
        seconds=round(time.monotonic() - started, 3),
        verdict=certificate.verdict,
        verdict_reason=certificate.reason,
        held_out_sequences=len(sequences) - len(used_tokens),
        dtype=task.dtype,
        streamed=task.streamed,
        certificate=certificate,
        chat=task.chat,
    )
    write_record(folder / layout.CALIBRATION, calibration)
    return calibration


def store_sequences(folder: Path, sequences: Sequence[TokenSequence]) -> None:
    """Writes the rows really used, held-out rows included."""
    tokens, lengths = pad([sequence.tokens for sequence in sequences])
    held_out = np.array([sequence.held_out for sequence in sequences])
    write_sequences(folder, Sequences(tokens, lengths, held_out, tuple(sequence.tag for sequence in sequences)))


def _ranges(
    inputs: Sequence[InputStatistics],
    asked: Sequence[Asked],
    groups: Sequence[Group],
    reads: dict[str, str],
) -> tuple[tuple[LayerRange, ...], dict[tuple[str, str], Bounds]]:
    readers: dict[str, list[str]] = {}
    for layer, source in reads.items():
        readers.setdefault(source, []).append(layer)
    records: list[LayerRange] = []
    bounds: dict[tuple[str, str], Bounds] = {}
    indices = [group.index for group in groups]
    for entry in inputs:
        for observer in asked:
            try:
                record, bounds[entry.name, observer.key] = layer_range(observer, entry, indices)
            except NothingObserved:
                continue  # the certificate names the layer
            records += [replace(record, layer=layer) for layer in readers[entry.name]]
    return tuple(records), bounds


def _channels(inputs: Sequence[InputStatistics]) -> dict[str, ChannelStatistics]:
    return {entry.name: entry.channels.finish() for entry in inputs if entry.channels.tokens}


def _histograms(
    inputs: Sequence[InputStatistics], groups: Sequence[Group]
) -> Iterator[tuple[str, str | None, Histogram]]:
    """One at a time: each has a place for every bin, and there are layers times tags of them."""
    tags = sorted({group.tag for group in groups})
    for entry in inputs:
        for tag in (None, *tags):
            histogram = entry.histogram(group.index for group in groups if tag in (None, group.tag))
            if histogram.values:
                yield entry.name, tag, histogram
