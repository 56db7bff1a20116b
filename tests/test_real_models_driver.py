"""The driver over real models: what it measures of a process, what it keeps, and what its page calls broken."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from real_models_page import page
from real_models_process import measure
from real_models_rows import Rows, StepRow
from real_models_steps import Amounts, Data, Drive, large_steps, steps

GREEDY = """
import subprocess, sys, time
print("begun", file=sys.stderr, flush=True)
child = subprocess.Popen([sys.executable, "-c", "held = bytearray(80 << 20); import time; time.sleep(1)"])
time.sleep(1)
child.wait()
print("ended")
sys.exit(3)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_process_is_measured_with_its_children() -> None:
    found = measure((sys.executable, "-c", GREEDY), environment={}, kill_after=None, limit_s=60)
    assert (found.code, found.killed, found.output) == (3, False, "ended\n")
    assert found.peak_bytes > 80 << 20
    assert found.first_word_s is not None
    assert 0 < found.first_word_s <= found.wall_s
    assert [line for _, line in found.segments] == ["begun"]


def test_a_process_is_killed_when_its_time_has_come() -> None:
    command = (sys.executable, "-c", "import time; print('Traceback', flush=True); time.sleep(60)")
    found = measure(command, environment={}, kill_after=1.0, limit_s=60)
    assert found.killed
    assert found.code == -9
    assert found.wall_s < 30
    assert found.flags() == ["Traceback"]


def test_right_rows_are_kept_and_wrong_ones_tried_again(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    rows.add(StepRow("m", "", "lint", "qtool lint", code=0, right=True))
    rows.add(StepRow("m", "", "bench", "qtool bench", code=3))
    again = Rows(tmp_path / "rows.jsonl")
    assert again.has("m", "", "lint")
    assert not again.has("m", "", "bench")
    assert not again.has("m", "QTOOL_NATIVE=0", "lint")
    again.add(StepRow("m", "", "bench", "qtool bench", code=0, right=True))
    assert [row.right for row in Rows(tmp_path / "rows.jsonl").all()] == [True, True]


def test_the_page_names_every_broken_bound() -> None:
    limits = {"most_bytes": 2e9, "parameters": 1e8}
    rows = [
        StepRow("m", "", "calibrate", "c", 0, True, 10, 40.0, int(1e9), 1.0, numbers=limits),
        StepRow("m", "", "bare forward pass", "f", 0, True, 10, 10.0, int(1e9), numbers=limits),
        StepRow("m", "", "quantize w4a16-gptq", "q", 0, True, 500, 500.0, int(3e9), 1.5, numbers=limits),
        StepRow("m", "", "serve, chat of three turns", "s", 1, False, 5, 5.0, 0, 0.5, tail="no bundle"),
    ]
    text = page(rows, "a machine")
    assert "**broken**: every step ends as it should (serve, chat of three turns)" in text
    assert "**broken**: calibration at most 3 x a bare pass (4.0 x" in text
    assert "**broken**: peak memory" in text
    assert "- holds: gptq at most 10 minutes (500 s)" in text
    assert "- holds: first word within 2 s (1.5 s in `quantize w4a16-gptq`)" in text
    assert "no bundle" in text


def test_every_step_is_a_command_with_a_name_of_its_own(tmp_path: Path) -> None:
    data = Data(*(tmp_path / name for name in ("gsm8k", "humaneval", "wikitext2")))
    drive = Drive(tmp_path / "model", tmp_path / "work", Amounts(100, 50, 64, 512), data, 90.0)
    for made in (steps(drive), large_steps(drive)):
        names = [step.name for step in made]
        assert len(set(names)) == len(names)
        assert all(len(step.command) >= 3 for step in made)
    assert sum(step.name.startswith("quantize ") for step in steps(drive)) == 10
