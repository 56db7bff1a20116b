"""A stage is skipped only if its inputs and its manifest are what they were."""

from pathlib import Path

import pytest

from qtool.store import stage_log
from qtool.store.stage_log import is_done, mark_done


def _finished(run: Path) -> Path:
    manifest = run / "calibration" / "calibration.json"
    manifest.parent.mkdir()
    manifest.write_text("{}")
    mark_done(run, "calibrate", {"set": "mixed"}, manifest)
    return manifest


def test_a_stage_is_done_after_it_was_marked(tmp_path: Path) -> None:
    assert not is_done(tmp_path, "calibrate", {"set": "mixed"})
    _finished(tmp_path)
    assert is_done(tmp_path, "calibrate", {"set": "mixed"})


def test_other_inputs_make_it_undone(tmp_path: Path) -> None:
    _finished(tmp_path)
    assert not is_done(tmp_path, "calibrate", {"set": "code"})


def test_another_version_makes_it_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _finished(tmp_path)
    monkeypatch.setattr(stage_log, "__version__", "0.0.1")
    assert not is_done(tmp_path, "calibrate", {"set": "mixed"})


def test_a_changed_or_missing_manifest_makes_it_undone(tmp_path: Path) -> None:
    manifest = _finished(tmp_path)
    manifest.write_text("{ }")
    assert not is_done(tmp_path, "calibrate", {"set": "mixed"})
    manifest.unlink()
    assert not is_done(tmp_path, "calibrate", {"set": "mixed"})


def test_stages_do_not_overwrite_each_other(tmp_path: Path) -> None:
    manifest = _finished(tmp_path)
    mark_done(tmp_path, "quantize:w8", 1, manifest)
    assert is_done(tmp_path, "calibrate", {"set": "mixed"})
    assert is_done(tmp_path, "quantize:w8", 1)
