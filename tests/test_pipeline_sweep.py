"""The sweep: every observer on every task, the uncalibrated case beside them, and which layers hurt."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import make_tiny_llama

from qtool.errors import UnknownName, UsageError
from qtool.pipeline.sweep import SweepSettings, sweep
from qtool.progress import Silent
from qtool.records.plan import CalibrationSettings
from qtool.records.sweep import Sweep
from qtool.store.codec import read_json

TASK = """
name = "copy"
version = 1
description = "Says a word again."
licence = "none"
data = "copy.jsonl"
prompt = "{question}"
scorer = "generation"
metric = "exact"
extract = "text"
margin_points = 5.0
items = 4
seed = 0
max_new_tokens = 2
stop = []
"""


@pytest.fixture
def settings(tmp_path: Path) -> SweepSettings:
    rows = [{"text": f"some text with the number {number} in it"} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = [{"id": str(number), "question": f"say {number}", "answer": str(number)} for number in range(4)]
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "copy.toml").write_text(TASK)
    (tmp_path / "evals" / "copy.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    calibration = CalibrationSettings(
        set=str(tmp_path / "rows.jsonl"),
        sequences=6,
        sequence_tokens=40,
        observers=("absmax:token", "absmax", "percentile:99", "fixed:8"),
    )
    return SweepSettings(calibration=calibration, tasks=("copy",))


def test_every_observer_has_a_row_and_every_task_a_cell(settings: SweepSettings, tmp_path: Path) -> None:
    model = make_tiny_llama(tmp_path / "tiny")
    found = sweep(model, settings, tmp_path / "out", progress=Silent(), evals_dir=tmp_path / "evals")
    assert [row.observer for row in found.rows] == ["absmax:token", "absmax", "percentile:99", "fixed:8"]
    assert [(row.dynamic, row.calibrated) for row in found.rows[:1] + found.rows[-1:]] == [(True, True), (False, False)]
    assert all([cell.task for cell in row.cells] == ["copy"] for row in found.rows)
    clipped = {row.observer: row.clipped_energy for row in found.rows}
    assert clipped["absmax:token"] is None
    assert clipped["percentile:99"] > clipped["absmax"]  # type: ignore[operator]
    assert read_json(Sweep, tmp_path / "out" / "sweep.json") == found
    table = (tmp_path / "out" / "sweep.md").read_text()
    assert "| fixed:8 (uncalibrated) |" in table
    assert "| absmax:token (per token) |" in table
    again = sweep(model, settings, tmp_path / "out", progress=Silent(), evals_dir=tmp_path / "evals")
    assert again == found


def test_what_cannot_be_swept_is_refused_before_any_work(settings: SweepSettings, tmp_path: Path) -> None:
    for change, error, message in (
        ({"scheme": "w4a16"}, UsageError, "has no activation ranges"),
        ({"tasks": ()}, UsageError, "no task is named"),
        ({"tasks": ("arithmetik",)}, UnknownName, "did you mean arithmetic"),
    ):
        with pytest.raises(error, match=message):
            sweep(tmp_path, replace(settings, **change), tmp_path / "out", progress=Silent())
    assert not (tmp_path / "out").exists()
