"""`qtool init`: a plan that can be run, whose numbers follow from time and power."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import qtool
from qtool.cli.app import app
from qtool.errors import StoreError, UnknownName, UsageError
from qtool.evaluate.verdicts.power import ENOUGH, Question, chance_to_pass_all
from qtool.pipeline import propose


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that reads 1 GB a second, so that the numbers are the same everywhere."""
    monkeypatch.setattr(propose, "measured_bandwidth", lambda device: 1e9)


def test_the_plan_is_one_that_can_be_run(tmp_path: Path) -> None:
    found = qtool.init("reference-64", output=tmp_path / "mine.toml", minutes=5)
    plan = qtool.read_plan(tmp_path / "mine.toml")
    assert (plan.base, plan.name) == ("reference-64", "mine")
    assert [variant.name for variant in plan.variants] == ["w8a16", "w8a8", "w4a16"]
    assert plan.variants[2].recipe.group_size == found.group_size
    assert tuple(task.name for task in plan.tasks) == found.tasks
    assert max(task.items or 0 for task in plan.tasks) == found.items
    text = (tmp_path / "mine.toml").read_text()
    assert text.count("#") > 10, "a plan that explains itself"


def test_more_time_gives_more_items_and_a_margin_that_power_allows(tmp_path: Path) -> None:
    small, large = (propose.propose("reference-64", minutes=minutes, name="n") for minutes in (0.01, 500.0))
    assert small.items < large.items
    assert small.margin_points >= large.margin_points
    assert large.chance >= ENOUGH
    tighter = [points for points in (1.0, 1.5, 2.0, 3.0) if points < large.margin_points]
    for points in tighter:
        assert chance_to_pass_all([Question(large.items, points / 100)] * len(large.tasks)) < ENOUGH


def test_a_plan_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("mine")
    with pytest.raises(StoreError, match=r"already exists; give another -o, or --replace"):
        qtool.init("reference-64", output=path)
    with pytest.raises(UnknownName, match="did you mean reference-64"):
        qtool.init("reference-65", output=path, replace=True)
    with pytest.raises(UsageError, match="give more than 0"):
        qtool.init("reference-64", output=path, replace=True, minutes=0)
    assert path.read_text() == "mine", "nothing is half-written"
    found = CliRunner().invoke(app, ["init", "reference-64", "-o", str(path), "--replace", "--minutes", "2", "-q"])
    assert found.exit_code == 0
    assert f"carry it out: qtool run {path}" in found.stdout
