"""A run that was killed continues and ends with the same bytes; what was made from something else is not used."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from qtool.models.checkpoint import weights_digest
from qtool.progress import Silent
from qtool.quantize.request.estimate import estimate
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe, Variant
from qtool.report.texts.estimate_text import estimate_text

Make = Callable[..., Variant]
RECIPE = Recipe("w4a16", "gptq", 32)

KILLED = """
import contextlib, os, signal, sys
from pathlib import Path
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe

class Deadly:
    @contextlib.contextmanager
    def track(self, label, total, unit):
        yield lambda units: os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text):
        pass

model, calibration, output = map(Path, sys.argv[1:])
recipe = Recipe("w4a16", "gptq", 32)
quantize(model, recipe, output, name="variant", calibration=calibration, progress=Deadly(), whole_check=False)
"""


def test_killed_run_continues_and_ends_with_the_same_bytes(
    make: Make, tmp_path: Path, llama: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtool.quantize.blocks import sequential

    whole = make(RECIPE, calibration=calibration, name="whole")
    output = tmp_path / "variant"
    command = [sys.executable, "-c", KILLED, str(llama), str(calibration), str(output)]
    killed = subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    partial = tmp_path / "variant.partial"
    assert not output.exists()
    honest, made = sequential._make_block, []

    def counted(job, streamed, parts, index, samples):  # type: ignore[no-untyped-def]
        made.append(index)
        return honest(job, streamed, parts, index, samples)

    monkeypatch.setattr(sequential, "_make_block", counted)
    continued = make(RECIPE, calibration=calibration)
    assert continued.weights_digest == whole.weights_digest
    assert made == [1], "the finished block was made again"
    assert sorted(path.name for path in output.glob("model*")) == ["model.safetensors"]
    assert not partial.exists()
    assert continued.layers == whole.layers


def test_interrupted_run_of_another_recipe_is_not_continued(
    make: Make, tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtool.quantize.blocks import sequential

    honest = sequential._make_block

    def interrupted(job, streamed, parts, index, samples):  # type: ignore[no-untyped-def]
        if index == 1:
            raise KeyboardInterrupt
        return honest(job, streamed, parts, index, samples)

    monkeypatch.setattr(sequential, "_make_block", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(RECIPE, calibration=calibration)
    monkeypatch.undo()
    other = make(Recipe("w8a16", "rtn"), calibration=calibration)
    fresh = make(Recipe("w8a16", "rtn"), calibration=calibration, name="fresh")
    assert other.weights_digest == fresh.weights_digest
    assert weights_digest(tmp_path / "variant") == other.weights_digest


def test_plan_only_measures_one_block_and_leaves_nothing(llama: Path, calibration: Path, tmp_path: Path) -> None:
    found = estimate(llama, RECIPE, name="plan", calibration=calibration, progress=Silent())
    assert found is not None
    assert found.blocks == 2
    assert found.block_seconds > 0
    assert found.minutes == pytest.approx(found.block_seconds * 2 / 60)
    assert "about 0" not in estimate_text(found)
    assert "2.5 minutes" in estimate_text(replace(found, minutes=2.5))
    assert found.peak_memory_bytes > 1 << 20
    assert found.samples_bytes > 0
    assert "about" in estimate_text(found)
    made = quantize(llama, RECIPE, tmp_path / "v", name="v", calibration=calibration, progress=Silent())
    assert found.disk_bytes == made.bytes + found.samples_bytes


def test_plan_of_a_method_without_blocks_is_none(llama: Path) -> None:
    recipe = Recipe("base", "baseline")
    assert estimate(llama, recipe, name="plan", calibration=None, progress=Silent()) is None


@pytest.mark.parametrize("moment", ["keep_samples", "write_record", "write_outcome", "join"])
def test_a_run_that_ends_at_any_moment_continues_with_the_same_bytes(
    make: Make, calibration: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Interrupted right after the hidden states of block 0 are there and before its record is; between them and the
    outcome; before the parts are joined."""
    from qtool.quantize.blocks import finished_parts as parts

    whole = make(RECIPE, calibration=calibration, name="whole")

    class Interrupted(BaseException):
        pass

    def interrupts(*arguments: object, **named: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        if moment == "keep_samples":  # the states are on disk, the record of the part is not
            honest = parts.Parts.keep_samples

            def kept(self: parts.Parts, part: int, samples: object) -> None:
                honest(self, part, samples)  # type: ignore[arg-type]
                if part == 2:
                    raise Interrupted

            patch.setattr(parts.Parts, "keep_samples", kept)
        elif moment == "write_record":
            written = parts.write_record

            def recorded(path: Path, record: object) -> None:
                if path.name == "part-00002.json":
                    raise Interrupted
                written(path, record)

            patch.setattr(parts, "write_record", recorded)
        else:
            patch.setattr(parts.Parts, moment, interrupts)
        with pytest.raises(Interrupted):
            make(RECIPE, calibration=calibration)
    continued = make(RECIPE, calibration=calibration)
    assert continued.weights_digest == whole.weights_digest
    assert continued.held_out == whole.held_out


def test_a_continued_run_keeps_the_threads_it_began_with_and_says_so(
    make: Make, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from qtool.quantize.blocks import finished_parts as parts

    class Interrupted(BaseException):
        pass

    def interrupts(*arguments: object) -> None:
        raise Interrupted

    notes: list[str] = []

    class Noting(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with monkeypatch.context() as patch:
            patch.setattr(parts.Parts, "join", interrupts)
            with pytest.raises(Interrupted):
                make(RECIPE, calibration=calibration)
        torch.set_num_threads(1)
        variant = make(RECIPE, calibration=calibration, progress=Noting())
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert variant.threads == 2
    assert any("number of threads (2)" in note for note in notes)
