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
    for width in (64, 128, 256):
        assert f"qtool/reference/weights/reference-{width}/model.safetensors" in names
    assert "qtool/reference/demo.toml" in names
    assert "qtool/py.typed" in names


def test_the_wheel_stays_small_enough_to_clone_and_install(wheel: Path) -> None:
    # the reference models may weigh 25 MB together; code and data beside them are small
    assert wheel.stat().st_size < 30e6


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
