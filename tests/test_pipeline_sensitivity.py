"""Sensitivity by task score: each layer alone and kept, with paired intervals; a second call asks nothing again."""

import json
from pathlib import Path

import pytest
from tiny_calibration import make_calibration
from typer.testing import CliRunner

from qtool.cli.app import app
from qtool.models.locate import locate


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict, Path]:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("sensitivity")
    calibration = make_calibration(folder / "calibration", locate("reference-64"))
    arguments = ["sensitivity", "reference-64", "--calibration", str(calibration), "--group-size", "32", "--json"]
    arguments += ["--task", "arithmetic", "--items", "12", "--folder", str(folder / "trials"), "-q"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return arguments, json.loads(found.stdout), folder / "trials"


def test_every_unit_is_scored_alone_and_kept(measured: tuple[list[str], dict, Path]) -> None:  # type: ignore[type-arg]
    _, document, folder = measured
    assert document["items"] == 12
    assert [unit["layers"] for unit in document["units"]] == [unit["layers"] for unit in document["kl"]["units"]]
    for unit in document["units"]:
        for change in (unit["alone"], unit["kept"]):
            assert change["interval"]["low"] <= change["difference"] <= change["interval"]["high"]
        assert unit["alone"]["score"] - document["base_score"] == pytest.approx(unit["alone"]["difference"])
        assert unit["kept"]["score"] - document["all"]["score"] == pytest.approx(unit["kept"]["difference"])
    assert not any((folder / "variants").iterdir()), "trials are removed once they have answered"


def test_an_equal_call_asks_nothing_again(measured: tuple[list[str], dict, Path]) -> None:  # type: ignore[type-arg]
    arguments, document, folder = measured
    before = {path: path.stat().st_mtime_ns for path in (folder / "evaluations").rglob("*.json")}
    again = CliRunner().invoke(app, arguments)
    assert json.loads(again.stdout) == document
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "evaluations").rglob("*.json")}


def test_items_without_a_task_are_refused(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["sensitivity", "reference-64", "--calibration", str(tmp_path), "--items", "5"])
    assert "goes with --task" in str(found.exception)
