"""Parts of one set that were run apart, by other processes or machines, and the calibration they are together."""

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from qtool.calibrate.conclusion import Task, finish
from qtool.calibrate.observe import parse
from qtool.calibrate.passes.one_pass import part_file
from qtool.calibrate.statistics.channels import settled
from qtool.calibrate.statistics.inputs import Group, InputStatistics, merge_statistics
from qtool.calibrate.statistics.inputs_file import BlockStatistics, read_statistics
from qtool.data.sequences import TokenSequence
from qtool.errors import MismatchError, StoreError, UsageError
from qtool.records.calibration import Calibration
from qtool.store.codec import read_json
from qtool.store.ranges_file import read_all_sequences
from qtool.store.run_directory import new_folder, write_record

MANIFEST = "shard.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """The manifest `shard.json`: part `number` of `count` (from 1) of what `task` asks; `groups` are those of the
    whole set, of which every count-th is this shard's."""

    number: int
    count: int
    task: Task
    groups: tuple[Group, ...]
    parts: tuple[str, ...]
    seconds: float


def parse_shard(text: str) -> tuple[int, int]:
    """Number and count of "i/n". Raises UsageError."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise UsageError(f"shard {text!r}: write i/n with i from 1 to n, for example 2/4")
    return int(number), int(count)


def write_shard(folder: Path, shard: Shard) -> Shard:
    """Writes the manifest, last of all files, and returns it."""
    write_record(folder / MANIFEST, shard)
    return shard


def merge_shards(folders: Sequence[Path], output: Path) -> Calibration:
    """The calibration that one pass over the whole set would have given, from all its shards.

    Raises MismatchError naming what differs when they are not shards of one set, or one is missing or given twice.
    """
    started = time.monotonic()
    shards = [_read(folder) for folder in folders]
    _check(shards, folders)
    first = shards[0]
    blocks = [
        settled(reduce(_merge, (read_statistics(part_file(folder, part)) for folder in folders)))
        for part in first.parts
    ]
    with new_folder(output) as folder:
        return finish(
            folder,
            first.task,
            blocks,
            asked=tuple(parse(text) for text in first.task.observers),
            groups=first.groups,
            sequences=_sequences(folders[0]),
            started=started,
        )


def _read(folder: Path) -> Shard:
    if not (folder / MANIFEST).is_file():
        raise StoreError(f"{folder}: no {MANIFEST}; this is no finished shard, run `qtool calibrate --shard` first")
    return read_json(Shard, folder / MANIFEST)


def _check(shards: Sequence[Shard], folders: Sequence[Path]) -> None:
    first = shards[0]
    for shard, folder in zip(shards, folders, strict=True):
        for name in ("model", "set_digest", "sequence_tokens", "observers", "outputs", "dtype"):
            mine, wanted = getattr(shard.task, name), getattr(first.task, name)
            if mine != wanted:
                raise MismatchError(f"{folder}: {name} is {_short(mine)}, but {folders[0]} has {_short(wanted)}")
        if shard.count != first.count:
            raise MismatchError(f"{folder}: is one of {shard.count} shards, but {folders[0]} one of {first.count}")
    numbers = [shard.number for shard in shards]
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise MismatchError(f"shard {twice[0]}/{first.count} is given twice")
    if missing := sorted(set(range(1, first.count + 1)) - set(numbers)):
        raise MismatchError(f"shard {missing[0]}/{first.count} is missing; give all {first.count} shards")


def _short(value: object) -> str:
    from qtool.records.model import ModelIdentity

    return f"{value.name} ({value.weights_digest[:12]})" if isinstance(value, ModelIdentity) else str(value)


def _merge(first: BlockStatistics, second: BlockStatistics) -> BlockStatistics:
    inputs: dict[str, InputStatistics] = {entry.name: entry for entry in first.inputs}
    for entry in second.inputs:
        inputs[entry.name] = merge_statistics(inputs[entry.name], entry) if entry.name in inputs else entry
    experts = dict(first.experts)
    for name, counts in second.experts.items():
        experts[name] = experts[name] + counts if name in experts else counts
    return BlockStatistics(tuple(inputs.values()), {**second.reads, **first.reads}, experts)


def _sequences(folder: Path) -> tuple[TokenSequence, ...]:
    stored = read_all_sequences(folder)
    return tuple(
        TokenSequence(array("i", row[:length].astype(np.int32).tobytes()), tag, bool(held_out), "")
        for row, length, tag, held_out in zip(stored.tokens, stored.lengths, stored.tags, stored.held_out, strict=True)
    )
