"""The files of a calibration folder beside its manifest: ranges, histograms and the token ids they were seen on.

Layers that read one input tensor (q, k and v; gate and up) share its statistics: each file stores an input once, under
the name of the first layer that reads it, and says in its header which layers read which input.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtool.errors import MismatchError, StoreError, UnknownName
from qtool.records.calibration import Calibration, LayerRange
from qtool.records.histogram import BINS, Histogram
from qtool.store.codec import read_json
from qtool.store.layout import CALIBRATION, HISTOGRAMS, RANGES, SEQUENCES
from qtool.store.run_directory import explained

_READS = "reads"  # header key: JSON object, layer -> name its input is stored under
_CHANNELS = ("absmax", "low", "high", "mean", "mean_abs", "second_moment")


@dataclass(frozen=True, slots=True, eq=False)
class ChannelStatistics:
    """What each input column of a layer saw, float32 [columns] each, over `tokens` tokens."""

    tokens: int
    absmax: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    mean: NDArray[np.float32]
    mean_abs: NDArray[np.float32]
    second_moment: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """A range as arrays: float32 [1] per tensor, [columns] per channel."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Token ids int32 [rows, longest], padded with 0; `lengths` int32 [rows]; `held_out` bool [rows]; a tag a row."""

    tokens: NDArray[np.int32]
    lengths: NDArray[np.int32]
    held_out: NDArray[np.bool_]
    tags: tuple[str, ...]


def read_calibration(folder: Path) -> Calibration:
    """The manifest of the calibration in `folder`. Raises StoreError when there is none."""
    if not (folder / CALIBRATION).is_file():
        raise StoreError(f"{folder}: no {CALIBRATION}; this is not a finished calibration, run `qtool calibrate` first")
    return read_json(Calibration, folder / CALIBRATION)


def read_ranges(folder: Path, observer: str) -> dict[str, LayerRange]:
    """Range of each linear layer's input as `observer` sees it. Raises UnknownName with the observers that were run."""
    calibration = read_calibration(folder)
    if observer not in calibration.observers:
        raise UnknownName("observer of this calibration", observer, calibration.observers)
    return {entry.layer: entry for entry in calibration.ranges if entry.observer == observer}


def read_bounds(folder: Path, observer: str) -> dict[str, Bounds]:
    """Ranges of `observer` as arrays by layer, one value per tensor or one per input column."""
    tensors, reads = _read(folder / RANGES)
    found = {}
    for layer, source in reads.items():
        low, high = (tensors.get(f"{source}|{observer}|{side}") for side in ("low", "high"))
        if low is not None and high is not None:
            found[layer] = Bounds(low, high)
    return found


def read_channels(folder: Path) -> dict[str, ChannelStatistics]:
    """Statistics of each layer's input columns."""
    tensors, reads = _read(folder / RANGES)
    return {
        layer: ChannelStatistics(
            int(tensors[f"{source}|tokens"][0]), *(tensors[f"{source}|{name}"] for name in _CHANNELS)
        )
        for layer, source in reads.items()
        if f"{source}|tokens" in tensors
    }


def write_ranges(
    folder: Path,
    bounds: Mapping[tuple[str, str], Bounds],
    channels: Mapping[str, ChannelStatistics],
    reads: Mapping[str, str],
) -> None:
    """Writes ranges by (input, observer) and column statistics by input; `reads` maps each layer to its input."""
    tensors: dict[str, NDArray[Any]] = {}
    for (source, observer), value in bounds.items():
        tensors[f"{source}|{observer}|low"] = value.low
        tensors[f"{source}|{observer}|high"] = value.high
    for source, statistics in channels.items():
        tensors[f"{source}|tokens"] = np.array([statistics.tokens], dtype=np.int64)
        tensors.update({f"{source}|{name}": getattr(statistics, name) for name in _CHANNELS})
    _write(folder / RANGES, tensors, reads)


def read_histograms(folder: Path, *, tag: str | None = None) -> dict[str, Histogram]:
    """Histogram of each layer's input over the calibration rows, or over those of one `tag` only."""
    tensors, reads = _read(folder / HISTOGRAMS)
    return {layer: histogram for layer, source in reads.items() if (histogram := _dense(tensors, source, tag))}


def stored_inputs(folder: Path) -> tuple[str, ...]:
    """The inputs that have a histogram, each once, under the name of the first layer that reads it; in order of the
    model's layers."""
    _, reads = _read(folder / HISTOGRAMS)
    return tuple(sorted({source for source in reads.values()}, key=_natural))


def write_histograms(
    folder: Path, histograms: Iterable[tuple[str, str | None, Histogram]], reads: Mapping[str, str]
) -> None:
    """Writes (input, tag, histogram), tag None for all tags together; bins never seen take no space."""
    tensors: dict[str, NDArray[Any]] = {}
    for source, tag, histogram in histograms:
        key = _histogram_key(source, tag)
        seen = np.flatnonzero(histogram.counts).astype(np.int32)
        tensors[f"{key}|bins"] = seen
        tensors[f"{key}|counts"] = histogram.counts[seen]
        tensors[f"{key}|bounds"] = np.array([histogram.low, histogram.high], dtype=np.float64)
    _write(folder / HISTOGRAMS, tensors, reads)


def read_all_sequences(folder: Path) -> Sequences:
    """Every row the calibration used, held-out rows included."""
    tensors, tags = _read(folder / SEQUENCES)
    names = {int(index): tag for index, tag in tags.items()}
    return Sequences(
        tensors["tokens"],
        tensors["lengths"],
        tensors["held_out"].astype(np.bool_),
        tuple(names[int(index)] for index in tensors["tags"]),
    )


def read_sequences(folder: Path, *, held_out: bool = False) -> tuple[tuple[int, ...], ...]:
    """Token ids of the rows that made the ranges, or of the `held_out` rows that only checked them."""
    everything = read_all_sequences(folder)
    return tuple(
        tuple(int(token) for token in row[:length])
        for row, length, kept_back in zip(everything.tokens, everything.lengths, everything.held_out, strict=True)
        if bool(kept_back) == held_out
    )


def write_sequences(folder: Path, sequences: Sequences) -> None:
    """Writes the rows really used, so that GPTQ and AWQ see the tokens that the ranges were made from."""
    names = sorted(set(sequences.tags))
    tensors: dict[str, NDArray[Any]] = {
        "tokens": sequences.tokens.astype(np.int32),
        "lengths": sequences.lengths.astype(np.int32),
        "held_out": sequences.held_out.astype(np.uint8),
        "tags": np.array([names.index(tag) for tag in sequences.tags], dtype=np.int32),
    }
    _write(folder / SEQUENCES, tensors, {str(index): tag for index, tag in enumerate(names)})


def pad(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Rows of token ids as int32 [rows, longest] padded with 0, and their lengths int32 [rows]."""
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    tokens = np.zeros((len(rows), int(lengths.max(initial=0))), dtype=np.int32)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = row
    return tokens, lengths


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that puts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _histogram_key(source: str, tag: str | None) -> str:
    return source if tag is None else f"{source}|tag {tag}"


def _dense(tensors: Mapping[str, NDArray[Any]], source: str, tag: str | None) -> Histogram | None:
    key = _histogram_key(source, tag)
    if f"{key}|bins" not in tensors:
        return None
    counts = np.zeros(BINS, dtype=np.int64)
    counts[tensors[f"{key}|bins"]] = tensors[f"{key}|counts"]
    low, high = tensors[f"{key}|bounds"]
    return Histogram(counts, float(low), float(high))


def _write(path: Path, tensors: Mapping[str, NDArray[Any]], header: Mapping[str, str]) -> None:
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    data = save(contiguous, metadata={_READS: json.dumps(dict(header), sort_keys=True)})
    with explained(path):
        path.write_bytes(data)


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise StoreError(f"{path}: missing; the calibration is not complete, run `qtool calibrate` again")
    try:
        with safe_open(path, framework="numpy") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
            header = (stored.metadata() or {}).get(_READS)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if header is None:
        raise MismatchError(f"{path}: was not written by qtool calibrate")
    return tensors, json.loads(header)
