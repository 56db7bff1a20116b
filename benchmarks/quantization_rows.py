"""Rows of the quantization benchmark: what one method gave, kept a line each so that a killed run goes on, and how sure
a difference between two of them is."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DRAWS = 4000
_LEVEL = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; None where it was not measured or the method failed, and then `note` says why.

    settings  what must be the same for rows to stand beside each other: weights, tokens, task
    divergences  KL divergence from the base (nats), summed over each scored sequence
    scored  tokens of each scored sequence; held by the base's row only
    """

    model: str
    settings: str
    case: str
    method: str
    made_with: str = ""
    bytes: int | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_bytes: int | None = None
    top1: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None
    divergences: tuple[float, ...] = ()
    scored: tuple[int, ...] = ()
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Two rows with the same key answer the same question."""
        return self.model, self.settings, self.case, self.method

    @property
    def failed(self) -> bool:
        """The method left nothing to score."""
        return self.bytes is None


@dataclass(frozen=True, slots=True)
class Measured:
    """A number and its 95 % interval, by resampling sequences."""

    value: float
    low: float
    high: float


class RowsFile:
    """The rows found so far, in memory and, with a path, a JSON line each; the latest of a key counts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: dict[tuple[str, str, str, str], Row] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.is_file() else []
        for line in lines:
            row = read_row(line)
            self.rows[row.key] = row

    def add(self, row: Row) -> None:
        """Holds `row` and writes it at once."""
        self.rows[row.key] = row
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(row), separators=(",", ":")) + "\n")


def read_row(line: str) -> Row:
    """The row that `RowsFile` wrote as one line."""
    values: dict[str, Any] = json.loads(line)
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Row(**(values | lists))


def kl(row: Row, base: Row) -> Measured | None:
    """Mean KL divergence of `row` from `base` in nats a token, or None where it was not measured."""
    if not row.divergences:
        return None
    draws = _resamples(len(base.scored))
    return _measured(np.array(row.divergences), np.array(base.scored, dtype=np.float64), draws)


def ratio(row: Row, other: Row) -> Measured | None:
    """KL of `row` over that of `other`, paired: both on the same resampled sequences; None where either is missing or
    the other's is zero."""
    if not row.divergences or sum(other.divergences) <= 0:
        return None
    return _measured(np.array(row.divergences), np.array(other.divergences), _resamples(len(row.divergences)))


def lowest(rows: Sequence[Row]) -> Row | None:
    """The row with the least KL among those that have one."""
    return min((row for row in rows if row.divergences), key=lambda row: sum(row.divergences), default=None)


def _measured(above: NDArray[np.float64], below: NDArray[np.float64], draws: NDArray[np.float64]) -> Measured:
    low, high = np.percentile(draws @ above / (draws @ below), _LEVEL)
    return Measured(float(above.sum() / below.sum()), float(low), float(high))


@cache
def _resamples(sequences: int) -> NDArray[np.float64]:
    """How often each sequence is drawn in each resample [draws, sequences]; the same for every row."""
    generator = np.random.default_rng(20261124)
    return generator.multinomial(sequences, np.full(sequences, 1 / sequences), size=_DRAWS).astype(np.float64)
