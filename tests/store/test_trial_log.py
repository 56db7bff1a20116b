"""A trial that was measured is not measured again; one that was not, or not of these inputs, is."""

from pathlib import Path

import pytest

from qtool.errors import StoreError
from qtool.store.trial_log import TrialLog


def never() -> float:
    raise AssertionError("measured again")


def test_a_known_trial_is_not_measured_again(tmp_path: Path):
    path = tmp_path / "new" / "trials.jsonl"
    log = TrialLog(path, "inputs")
    assert log.once(["q", "k"], lambda: 1 / 3) == 1 / 3
    assert log.once(["q", "k"], never) == 1 / 3
    assert TrialLog(path, "inputs").once(["q", "k"], never) == 1 / 3


def test_what_was_half_written_is_measured_again_and_the_rest_is_not(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path, "inputs")
    log.once(["a"], lambda: 1.5)
    log.once(["b"], lambda: 2.5)
    path.write_text(path.read_text()[:-4])  # as a kill leaves it
    again = TrialLog(path, "inputs")
    assert again.once(["a"], never) == 1.5
    assert again.once(["b"], lambda: 3.5) == 3.5
    assert TrialLog(path, "inputs").once(["b"], never) == 3.5


def test_other_inputs_begin_anew(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    TrialLog(path, "these").once(["a"], lambda: 1.0)
    assert TrialLog(path, "those").once(["a"], lambda: 2.0) == 2.0


def test_without_a_path_it_remembers_and_writes_nothing(tmp_path: Path):
    log = TrialLog(None, "inputs")
    log.once(["a"], lambda: 1.0)
    assert log.once(["a"], never) == 1.0
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        TrialLog(tmp_path / "file" / "trials.jsonl", "inputs")
