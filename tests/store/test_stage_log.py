"""A stage is skipped only if its inputs and its manifest are what they were."""

from pathlib import Path

import pytest

from qtool.store import stage_log
from qtool.store.stage_log import changed_file, is_done, mark_done


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


@pytest.mark.parametrize("change", ["flip", "remove"])
def test_a_file_the_manifest_speaks_for_makes_it_undone_when_it_changes(tmp_path: Path, change: str) -> None:
    weights = tmp_path / "variants" / "w8" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(bytes(64))
    manifest = weights.with_name("variant.json")
    manifest.write_text("{}")
    mark_done(tmp_path, "quantize:w8", 1, manifest)
    assert is_done(tmp_path, "quantize:w8", 1)
    weights.unlink() if change == "remove" else weights.write_bytes(bytes(62) + b"\1\1")
    assert not is_done(tmp_path, "quantize:w8", 1)
    assert changed_file(tmp_path, "quantize:w8", 1) == "variants/w8/model.safetensors"


def test_an_evaluation_speaks_for_its_own_items_alone(tmp_path: Path) -> None:
    for name in ("facts.json", "facts.items.jsonl", "other.items.jsonl"):
        (tmp_path / name).write_text("{}")
    mark_done(tmp_path, "evaluate:w8:facts", 1, tmp_path / "facts.json")
    (tmp_path / "other.items.jsonl").write_text("{ }")
    assert is_done(tmp_path, "evaluate:w8:facts", 1)
    (tmp_path / "facts.items.jsonl").write_text("{ }")
    assert not is_done(tmp_path, "evaluate:w8:facts", 1)


def test_stages_do_not_overwrite_each_other(tmp_path: Path) -> None:
    manifest = _finished(tmp_path)
    mark_done(tmp_path, "quantize:w8", 1, manifest)
    assert is_done(tmp_path, "calibrate", {"set": "mixed"})
    assert is_done(tmp_path, "quantize:w8", 1)
