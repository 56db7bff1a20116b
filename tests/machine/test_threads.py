"""Threads: what was asked for, and never more than the cores one really has."""

import importlib
from pathlib import Path

import pytest
import torch

import qtool
from qtool.errors import UsageError
from qtool.machine import threads
from qtool.machine.threads import waiting
from qtool.serve.supervision.threads import environment


@pytest.fixture
def of_eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_affinity", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_the_number_asked_for_holds_within_and_the_old_one_comes_back() -> None:
    before = torch.get_num_threads()
    with threads.computing_with(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
    with pytest.raises(UsageError, match="threads is 0"), threads.computing_with(0):
        pass


def test_a_quota_of_the_cgroup_is_not_exceeded(of_eight_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: 1.5)
    assert threads.usable_cores() == 2
    with threads.computing_with(8):
        with threads.computing_with(None):
            assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        with threads.computing_with(None):
            assert torch.get_num_threads() == 8, "what the user set in the environment is meant"


def test_without_a_quota_torch_keeps_its_own_number(of_eight_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_quota", lambda: None)
    assert threads.usable_cores() == 8
    before = torch.get_num_threads()
    with threads.computing_with(None):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", None)])
def test_the_quota_is_what_the_kernel_says(
    text: str, cores: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    assert threads._quota() == cores


def test_a_command_computes_with_the_threads_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    stage = importlib.import_module("qtool.quantize.stage")
    monkeypatch.setattr(stage, "quantize", lambda *args, **settings: used.append(torch.get_num_threads()))
    qtool.quantize("reference-64", tmp_path / "v", scheme="w8a16", threads=5, quiet=True)
    assert used == [5]


def test_the_program_s_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert waiting() == {"GOMP_SPINCOUNT": "1000"}
    assert environment(2)["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert waiting() == {}
    assert "GOMP_SPINCOUNT" not in environment(2)
