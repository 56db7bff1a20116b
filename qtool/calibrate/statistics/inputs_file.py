"""Statistics of one block on disk: what lets an interrupted pass resume and shards of a set be merged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtool.calibrate.statistics.inputs import ChannelSums, GroupCounts, InputStatistics, TokenSample
from qtool.errors import StoreError
from qtool.store.run_directory import explained

_SUMS = ("low", "high", "total", "total_magnitude", "total_square")


@dataclass(frozen=True, slots=True, eq=False)
class BlockStatistics:
    """One block's inputs, which layer reads which of them, and tokens per expert (int64 [experts]) by module."""

    inputs: tuple[InputStatistics, ...]
    reads: dict[str, str]
    experts: dict[str, NDArray[np.int64]]


def write_statistics(path: Path, block: BlockStatistics) -> None:
    """Replaces `path` by the statistics of one block, atomically."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {f"experts|{name}": counts for name, counts in block.experts.items()}
    for entry in block.inputs:
        arrays.update({f"{entry.name}|{key}": value for key, value in _arrays(entry).items()})
    header = {"inputs": json.dumps([entry.name for entry in block.inputs]), "reads": json.dumps(block.reads)}
    data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata=header)
    partial = path.with_suffix(".partial")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)


def read_statistics(path: Path) -> BlockStatistics:
    """The statistics in `path`. Raises StoreError when it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StoreError(f"{path}: missing; this shard is not complete")
    try:
        with safe_open(path, framework="numpy") as stored:
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
            header = stored.metadata()
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    inputs = tuple(_input(name, arrays) for name in json.loads(header["inputs"]))
    experts = {name.partition("|")[2]: array for name, array in arrays.items() if name.startswith("experts|")}
    return BlockStatistics(inputs, json.loads(header["reads"]), experts)


def _arrays(entry: InputStatistics) -> dict[str, NDArray[Any]]:
    groups = entry.groups
    columns = {} if entry.column_counts is None else {"columns": entry.column_counts}
    steps = [group.columns for group in groups if group.columns is not None]
    return {
        **columns,
        **({"steps": np.stack(steps)} if steps else {}),
        "group": np.array([[group.group, group.tokens, len(group.bins)] for group in groups], np.int64).reshape(-1, 3),
        "bounds": np.array([[group.low, group.high] for group in groups], np.float64).reshape(-1, 2),
        "bins": np.concatenate([np.zeros(0, np.int32), *(group.bins for group in groups)]),
        "counts": np.concatenate([np.zeros(0, np.int64), *(group.counts for group in groups)]),
        **_channel_arrays("channels", entry.channels),
        **{
            name: array
            for tag, sums in entry.held_out.items()
            for name, array in _channel_arrays(f"tag {tag}", sums).items()
        },
        "draws": entry.sample.draws,
        "vectors": entry.sample.vectors,
    }


def _input(name: str, arrays: Mapping[str, NDArray[Any]]) -> InputStatistics:
    of = {key: arrays[f"{name}|{key}"] for key in ("group", "bounds", "bins", "counts", "draws", "vectors")}
    steps = arrays.get(f"{name}|steps", [None] * len(of["group"]))
    starts = np.cumsum(of["group"][:, 2]) - of["group"][:, 2]
    groups = tuple(
        GroupCounts(
            group=int(group),
            tokens=int(tokens),
            bins=of["bins"][start : start + size],
            counts=of["counts"][start : start + size],
            low=float(low),
            high=float(high),
            columns=step,
        )
        for (group, tokens, size), start, (low, high), step in zip(
            of["group"], starts, of["bounds"], steps, strict=True
        )
    )
    prefix, suffix = f"{name}|tag ", "|sums"
    tags = sorted(key[len(prefix) : -len(suffix)] for key in arrays if key.startswith(prefix) and key.endswith(suffix))
    channels = _channels(f"{name}|channels", arrays)
    return InputStatistics(
        name=name,
        columns=len(channels.low),
        groups=groups,
        channels=channels,
        held_out={tag: _channels(f"{name}|tag {tag}", arrays) for tag in tags},
        sample=TokenSample(of["draws"], of["vectors"]),
        column_counts=arrays.get(f"{name}|columns"),
    )


def _channel_arrays(key: str, sums: ChannelSums) -> dict[str, NDArray[Any]]:
    return {
        f"{key}|tokens": np.array([sums.tokens], np.int64),
        f"{key}|sums": np.stack([getattr(sums, name) for name in _SUMS]),
    }


def _channels(key: str, arrays: Mapping[str, NDArray[Any]]) -> ChannelSums:
    return ChannelSums(int(arrays[f"{key}|tokens"][0]), *arrays[f"{key}|sums"])
