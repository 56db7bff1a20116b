"""From statistics to a range: what an observer plugin provides, and how one is named and asked.

An observer is written `name[:number][:channel|:group128|:token][:asymmetric]`, for example `percentile:99.9` or
`absmax:channel`; what is left out is the plugin's own number, one range per tensor, symmetric about zero. `group128`
stands for a range of every 128 neighbouring columns; any number may follow.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from qtool import catalog
from qtool.calibrate.statistics.inputs import InputStatistics, Kept, NothingObserved
from qtool.errors import UsageError
from qtool.records.calibration import LayerRange
from qtool.records.histogram import BINS, COLUMN_BINS, Histogram, clipped_share, widened
from qtool.store.ranges_file import Bounds

PACKAGE = "qtool.calibrate.observers"
_WORDS = "channel, group128, token or asymmetric"
Granularity = Literal["tensor", "channel", "group", "token"]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What an observer may look at: the histogram of all values, and the [low, high] of each group in order."""

    histogram: Histogram
    steps: tuple[tuple[float, float], ...]


class Observer(Protocol):
    """What a module of `qtool.calibrate.observers` provides.

    `NUMBER` is the default of the number in its name, None where it takes none; `NUMBERS` the allowed interval.
    `NEEDS` is the least it works from: the bounds of a column, its histogram, or the steps of the whole input.
    """

    NUMBER: float | None
    NUMBERS: tuple[float, float]
    NEEDS: Literal["bounds", "histogram", "steps"]

    def bounds(self, seen: Seen, number: float, symmetric: bool) -> tuple[float, float]:
        """Lowest and highest value to keep."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One observer as the user named it; `key` is the name as it is recorded, `columns` those that share a range: 1 per
    channel, 0 where they all do."""

    key: str
    name: str
    number: float
    granularity: Granularity
    symmetric: bool
    columns: int = 0


def parse(text: str) -> Asked:
    """The observer that `text` names. Raises UnknownName for the plugin, UsageError for what follows it."""
    name, *words = text.strip().split(":")
    found = plugin(name)
    number, granularity, symmetric, columns = found.NUMBER, "tensor", True, 0
    for word in words:
        if word in ("tensor", "channel", "token"):
            granularity, columns = word, int(word == "channel")
        elif word.startswith("group") and word[5:].isdigit() and int(word[5:]) > 1:
            granularity, columns = "group", int(word[5:])
        elif word in ("symmetric", "asymmetric"):
            symmetric = word == "symmetric"
        else:
            number = _number(text, name, word, found)
    return Asked(text.strip(), name, number or 0.0, cast(Granularity, granularity), symmetric, columns)


def plugin(name: str) -> Observer:
    """The observer module `name`. Raises UnknownName with the nearest names."""
    return cast(Observer, catalog.load(PACKAGE, name, kind="observer"))


def kept_for(asked: Iterable[Asked]) -> Kept:
    """What a pass must keep of single columns for these observers."""
    by_part = [(observer.columns, plugin(observer.name).NEEDS) for observer in asked if observer.columns]
    sizes = [columns for columns, needs in by_part if needs == "histogram"]
    return Kept(column_group=math.gcd(*sizes), column_steps=any(needs == "steps" for _, needs in by_part))


def check_columns(asked: Iterable[Asked], layers: Iterable[tuple[str, int]]) -> None:
    """Raises UsageError where groups of columns do not divide the columns of one of `layers`."""
    layers = tuple(layers)
    for observer in asked:
        for name, columns in layers:
            if observer.columns and columns % observer.columns:
                fitting = [str(size) for size in (32, 64, 128, 256) if all(width % size == 0 for _, width in layers)]
                raise UsageError(
                    f"observer {observer.key!r}: {name} has {columns} columns, which is no multiple of "
                    f"{observer.columns}; {'use ' + ' or '.join(fitting) if fitting else 'use channel'} instead"
                )


def observe(asked: Asked, seen: Seen, layer: str) -> tuple[float, float]:
    """The range of one tensor. Raises NothingObserved where no value was seen."""
    if seen.histogram.values == 0:
        raise NothingObserved(layer)
    low, high = plugin(asked.name).bounds(seen, asked.number, asked.symmetric)
    if asked.symmetric:
        high = max(-low, high)
        return -high, high
    return min(low, 0.0), max(high, 0.0)  # zero must be representable: padding and ReLU make many of them


def layer_range(asked: Asked, statistics: InputStatistics, groups: Iterable[int]) -> tuple[LayerRange, Bounds]:
    """The range of one layer's input over `groups`, as a record and as arrays.

    The record of a range per channel or group of columns carries the lowest and highest of all. Raises NothingObserved.
    """
    wanted = tuple(groups)
    seen = seen_of(statistics, wanted)
    if asked.columns:
        if statistics.channels.tokens == 0:
            raise NothingObserved(statistics.name)
        low, high = np.array([observe(asked, part, statistics.name) for part in _parts(asked, statistics, wanted)]).T
    else:
        low, high = (np.array([side]) for side in observe(asked, seen, statistics.name))
    record = LayerRange(
        layer=statistics.name,
        observer=asked.key,
        low=float(low.min()),
        high=float(high.max()),
        clipped_share=clipped_share(seen.histogram, float(low.min()), float(high.max())),
        values=seen.histogram.values,
        tokens=statistics.tokens(wanted),
        nonfinite=seen.histogram.nonfinite,
        dynamic=asked.granularity == "token",
    )
    return record, Bounds(low.astype(np.float32), high.astype(np.float32))


def seen_of(statistics: InputStatistics, groups: Iterable[int]) -> Seen:
    """What an observer sees of `groups` of one input."""
    wanted = set(groups)
    steps = tuple((entry.low, entry.high) for entry in statistics.groups if entry.group in wanted)
    return Seen(statistics.histogram(wanted), steps)


def _parts(asked: Asked, statistics: InputStatistics, groups: Sequence[int]) -> Iterator[Seen]:
    """What an observer sees of each channel, or of each group of columns."""
    parts = statistics.columns // asked.columns
    low = statistics.channels.low.reshape(parts, -1).min(1)
    high = statistics.channels.high.reshape(parts, -1).max(1)
    needs = plugin(asked.name).NEEDS
    steps = _part_steps(statistics, groups, parts) if needs == "steps" else np.zeros((0, 2, parts))
    counts = _part_counts(asked, statistics, parts) if needs == "histogram" else None
    for part in range(parts):
        histogram = (
            _bounds_as_histogram(low[part], high[part])
            if counts is None
            else widened(counts[part], float(low[part]), float(high[part]))
        )
        yield Seen(histogram, tuple((float(least), float(most)) for least, most in steps[:, :, part]))


def _part_counts(asked: Asked, statistics: InputStatistics, parts: int) -> NDArray[np.int64]:
    counts = statistics.column_counts
    if counts is None or len(counts) % parts:
        raise UsageError(f"observer {asked.key!r} needs histograms of columns, which this pass did not keep")
    return np.asarray(counts.reshape(parts, -1, COLUMN_BINS).sum(1, dtype=np.int64))


def _part_steps(statistics: InputStatistics, groups: Sequence[int], parts: int) -> NDArray[np.float32]:
    """Lowest and highest value of each part in each of `groups`: [groups, 2, parts]."""
    wanted = set(groups)
    kept = [entry.columns for entry in statistics.groups if entry.group in wanted and entry.columns is not None]
    if not kept:
        raise UsageError(f"{statistics.name}: bounds of columns in every group of rows, which this pass did not keep")
    steps = np.stack(kept).reshape(len(kept), 2, parts, -1)
    return np.stack([steps[:, 0].min(-1), steps[:, 1].max(-1)], axis=1)


def _bounds_as_histogram(low: float, high: float) -> Histogram:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[0] = 1  # something was seen; an observer that needs only bounds looks no further
    return Histogram(counts, float(low), float(high))


def _number(text: str, name: str, word: str, found: Observer) -> float:
    if found.NUMBER is None:
        raise UsageError(
            f"observer {text!r}: {name} takes no number, and {word!r} is not channel, group128, token or asymmetric"
        )
    try:
        number = float(word)
    except ValueError:
        raise UsageError(
            f"observer {text!r}: {word!r} is no number, nor channel, group128, token, asymmetric"
        ) from None
    low, high = found.NUMBERS
    if not low <= number <= high:
        raise UsageError(f"observer {text!r}: {word} must lie between {low:g} and {high:g}")
    return number
