"""A process killed in the middle: what it had answered is on disk, and the next one asks the rest."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from qtool.evaluate import results
from qtool.evaluate.stage import evaluate_asked

WORKER = """
import sys, time
from pathlib import Path
from qtool.progress import Silent
from qtool.evaluate.asking.questions import Asked
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.stage import evaluate_asked
from tests.evaluate.test_stage import TASK, right, sums
from tests.evaluate.workshop import Workshop

def slow(prompt):
    time.sleep(0.05)
    return right(prompt)

workshop = Workshop(Path(sys.argv[1]))
folder = workshop.model("baseline", slow)
evaluate_asked(folder, (Asked(TASK, sums(400), 2.0),), Path(sys.argv[2]), baseline=None, progress=Silent(),
               settings=Settings(in_flight=4, floor_share=0.0), opener=workshop.open)
"""


def test_kill_nine_loses_no_answer_and_repeats_none(tmp_path: Path) -> None:
    from qtool.evaluate.asking.questions import Asked
    from qtool.evaluate.asking.subject import Settings
    from qtool.progress import Silent
    from tests.evaluate.test_stage import TASK, right, sums
    from tests.evaluate.workshop import Workshop

    output = tmp_path / "e"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(output)], cwd=root)
    journal = results.journal_path(output, "sums")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not journal.exists() or journal.read_text().count("\n") < 20):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = journal.read_text().count("\n")
    assert 20 <= kept < 400
    assert not results.manifest_path(output, "sums").exists(), "what is not finished has no manifest"

    workshop = Workshop(tmp_path)
    evaluation = evaluate_asked(
        workshop.model("baseline", right), (Asked(TASK, sums(400), 2.0),), output,
        baseline=None, progress=Silent(), settings=Settings(floor_share=0.0, forcing=False), opener=workshop.open,
    )[0]  # fmt: skip
    assert evaluation.score.items == 400
    assert len(workshop.engines[0].asked) == 400 - kept
