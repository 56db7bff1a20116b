"""What travels in the wheel, and that an installed qtool finds it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_tasks_sets_and_reference_models_travel_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, prefix in (("evals", "qtool/_data/evals/"), ("calibration_sets", "qtool/_data/calibration_sets/")):
        for file in (ROOT / folder).iterdir():
            assert prefix + file.name in names
    for width in (64, 128):
        assert f"qtool/reference/weights/reference-{width}/model.safetensors" in names
    assert {"qtool/report/page/page.html.j2", "qtool/report/page/vega.js", "qtool/report/money/prices.toml"} <= names
    assert "qtool/reference/demo.toml" in names
    assert "qtool/py.typed" in names


def test_the_wheel_stays_below_five_megabytes(wheel: Path) -> None:
    assert wheel.stat().st_size < 5e6


def test_the_metadata_say_who_for_whom_and_for_what(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        text = file.read(name).decode()
    for field in ("Author: ", "Keywords: ", "Classifier: Typing :: Typed", "License-Expression: Apache-2.0"):
        assert field in text


def test_the_model_that_stays_in_the_sources_is_named_as_such(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    code = "from qtool.models.locate import locate; print(locate('reference-128')); locate('reference-256')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(str(tmp_path))
    assert "comes with qtool's sources, not with its wheel; use reference-128" in done.stderr


def test_an_installed_qtool_finds_its_tasks_and_sets(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "from qtool.store.shipped import evals_folder, sets_folder\n"
        "print(evals_folder() / 'arithmetic.toml', sets_folder() / 'mixed.toml', sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    for line in result.stdout.splitlines():
        assert line.startswith(str(tmp_path))
        assert Path(line).is_file()


def test_the_lock_holds_what_the_project_asks_for() -> None:
    """`make lock` writes it; a dependency that was added or raised since is named here."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    locked = dict(line.split("==") for line in lines)
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        wanted = Requirement(text)
        assert wanted.name in locked, f"{wanted.name} is not in constraints.txt; run: make lock"
        assert wanted.specifier.contains(locked[wanted.name]), f"{text}: not in constraints.txt; run: make lock"
