"""Threads: what was asked for, and never more than the cores one really has."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qtool
from qtool.errors import UsageError
from qtool.machine import threads


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


def test_the_program_s_threads_do_not_spin_unless_the_user_says_so() -> None:
    code = "import os, qtool.machine.threads as t; t.wait_without_spinning(); print(os.environ['OMP_WAIT_POLICY'])"
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for environment, expected in ((plain, "PASSIVE"), (plain | {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
