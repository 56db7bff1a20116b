"""Progress where stderr is no terminal: a line at once, and now and then one with the time left."""

import subprocess
import sys

import pytest

from qtool import progress
from qtool.progress import RichProgress


def test_lines_say_how_far_it_is_and_how_long_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    shown = RichProgress()
    with shown.track("quantizing", 10, "blocks") as advance:
        for _ in range(10):
            clock[0] += 8.0
            advance(1)
    with shown.track("noise floor", None, "items") as advance:
        clock[0] += 20.0
        advance(3)
    assert capsys.readouterr().err.splitlines() == [
        "quantizing: 10 blocks",
        "quantizing: 2 of 10 blocks, about 64 s left",
        "quantizing: 4 of 10 blocks, about 48 s left",
        "quantizing: 6 of 10 blocks, about 32 s left",
        "quantizing: 8 of 10 blocks, about 16 s left",
        "noise floor",
        "noise floor: 3 items",
    ]


CHECKED_FIRST = """
import sys
from qtool.errors import QtoolError
from qtool.front_door.quantization import quantize
try:
    quantize("no-such-model", "out", **{sys.argv[1]: "nonsense"})
except QtoolError as error:
    print(error, "| torch" if "torch" in sys.modules else "| light")
"""


@pytest.mark.parametrize("option", ["scheme", "method"])
def test_a_wrong_name_is_refused_before_anything_heavy_is_imported(option: str) -> None:
    run = subprocess.run([sys.executable, "-c", CHECKED_FIRST, option], capture_output=True, text=True, check=True)
    assert option in run.stdout
    assert "'nonsense'" in run.stdout
    assert run.stdout.endswith("| light\n")
