"""`qtool calibrate` as it is typed."""

import json
from pathlib import Path

import pytest
from tiny_model import make_tiny_llama
from typer.testing import CliRunner

from qtool.cli.calibrate import app
from qtool.errors import UnknownName
from qtool.report.texts.calibration_text import calibration_text
from qtool.store.ranges_file import read_calibration

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_llama(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {number} of a small set"}) + "\n" for number in range(12)))
    return str(path)


def test_a_model_without_a_sub_command_is_calibrated(model: str, rows: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [model, "--set", rows, "-o", str(tmp_path / "out"), "--sequences", "4", "-q"])
    assert result.exit_code == 0, result.output
    assert "enough? " in result.output
    assert calibration_text(read_calibration(tmp_path / "out")) in result.output, "what `qtool show` prints"
    calibration = read_calibration(tmp_path / "out")
    assert (calibration.model.source, calibration.observers) == (model, ("absmax", "percentile"))


def test_options_may_come_first_and_json_is_one_object(model: str, rows: str, tmp_path: Path) -> None:
    arguments = [
        "--set",
        rows,
        "--json",
        "-q",
        "--sequences",
        "4",
        "--observer",
        "mse:8",
        "-o",
        str(tmp_path / "out"),
        model,
    ]
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["observers"] == ["mse:8"]


def test_shards_are_made_and_merged(model: str, rows: str, tmp_path: Path) -> None:
    folders = [str(tmp_path / f"part{number}") for number in (1, 2)]
    for number, folder in enumerate(folders, start=1):
        arguments = [model, "--set", rows, "-o", folder, "--sequences", "4", "--shard", f"{number}/2", "-q"]
        result = RUNNER.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert f"shard {number}/2" in result.output
    result = RUNNER.invoke(app, ["merge", *folders, "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert read_calibration(tmp_path / "out").sequences > 0


def test_an_unknown_set_names_the_nearest(model: str, tmp_path: Path) -> None:
    result = RUNNER.invoke(app, [model, "--set", "arithmetik", "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, UnknownName)
    assert "did you mean arithmetic" in str(result.exception)
    assert not (tmp_path / "out").exists()
