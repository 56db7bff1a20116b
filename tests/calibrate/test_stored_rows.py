"""Rows in a file are the rows that were given; token draws do not depend on how they are gathered."""

import errno
from array import array
from pathlib import Path

import numpy as np
import pytest

from qtool.calibrate.passes.stored_rows import store_rows
from qtool.calibrate.statistics.groups import draw_tokens
from qtool.calibrate.statistics.inputs import SAMPLED_TOKENS
from qtool.data.sequences import TokenSequence
from qtool.errors import StoreError


def made_rows(count: int) -> list[TokenSequence]:
    generator = np.random.default_rng(0)
    return [
        TokenSequence(
            array("i", generator.integers(0, 2**31 - 1, 5 + row % 7).tolist()),
            f"tag {row % 2}",
            row % 3 == 0,
            f"line {row}",
        )
        for row in range(count)
    ]


def test_stored_rows_are_those_given(tmp_path: Path) -> None:
    rows = made_rows(20)
    stored = store_rows(tmp_path / "rows.bin", rows)
    assert list(stored) == rows
    assert stored[3:5] == tuple(rows[3:5])
    assert [stored.length(row) for row in range(20)] == [len(row.tokens) for row in rows]
    assert [stored.where(row) for row in range(20)] == [row.where for row in rows]
    assert (tmp_path / "rows.bin").stat().st_size == 4 * sum(len(row.tokens) for row in rows)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, mode: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match=r"rows\.bin: the disk is full"):
        store_rows(tmp_path / "rows.bin", made_rows(2))


def test_the_smallest_draws_of_all_calibration_tokens_are_kept() -> None:
    rows = made_rows(200)
    found = draw_tokens(rows, seed=4)
    generator = np.random.default_rng([4, 2])
    every = [(row, generator.random(len(sequence.tokens))) for row, sequence in enumerate(rows)]
    draws = sorted(float(draw) for row, values in every if not rows[row].held_out for draw in values)
    assert sorted(draw for places in found.values() for draw in places.values()) == draws[:SAMPLED_TOKENS]
    assert all(every[row][1][place] == draw for row, places in found.items() for place, draw in places.items())
