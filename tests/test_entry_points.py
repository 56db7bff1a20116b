"""A package of one module adds a plugin: it is built, installed into a folder of its own, and used by name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "qtool-shouting"
version = "1.0"
[project.entry-points."qtool.metrics"]
shouting = "qtool_shouting"
[project.entry-points."qtool.observers"]
twice = "qtool_shouting"
[project.entry-points."qtool.formats"]
bytes = "qtool_bytes"
[tool.hatch.build.targets.wheel]
only-include = ["qtool_shouting.py", "qtool_bytes.py"]
"""
MODULE = '''"""Answers in capital letters.

What it does: 1 if every letter of the answer is a capital.
When to use it: never.
What it costs: nothing.
When it fails: on digits.
"""
DIRECTION = "higher"
BINARY = True
PERFECT = 1.0
UNIT = "fraction"


def grade(item, answer, task):
    from qtool.evaluate.contract import Grade

    return Grade(score=float(answer.text.isupper()), extracted=answer.text)
'''
TASK = """
name = "loud"
version = 1
description = "d"
licence = "CC0-1.0"
data = "loud.jsonl"
prompt = "{question}"
scorer = "generation"
metric = "shouting"
extract = "text"
margin_points = 2.0
items = 2
seed = 1
max_new_tokens = 4
"""


def format_of_the_page() -> str:
    """The format that docs/how-to/format.md shows, without the lines that try it."""
    page = (Path(__file__).resolve().parent.parent / "docs" / "how-to" / "format.md").read_text(encoding="utf-8")
    code = next(re.finditer(r"^```python\n(.*?)^```", page, re.M | re.S))[1]
    return code[: code.index("\nform = ")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package was installed into."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "qtool_shouting.py").write_text(MODULE)
    (source / "qtool_bytes.py").write_text(format_of_the_page())
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True)
    return target


def qtool(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(installed), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "qtool", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_an_installed_plugin_is_listed_and_explained(installed: Path) -> None:
    listed = json.loads(qtool(installed, "list", "--json").stdout)
    assert listed["metrics"]["shouting"] == "Answers in capital letters."
    assert "twice" in listed["observers"]
    assert "What it costs" in qtool(installed, "explain", "shouting").stdout
    assert "did you mean shouting" in qtool(installed, "explain", "metric", "shoutin").stderr


def test_an_installed_metric_scores_a_task(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "loud.toml").write_text(TASK)
    rows = ({"id": str(number), "question": f"Question: {number}+1?", "answer": " TWO"} for number in range(2))
    (tmp_path / "loud.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = qtool(installed, "eval", "reference-64", "--task", str(tmp_path / "loud.toml"), "-q", "--json",
                 "-o", str(tmp_path / "out"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    score = json.loads(done.stdout)["evaluations"][0]["score"]
    assert (score["metric"], score["unit"], score["items"]) == ("shouting", "fraction", 2)


def test_an_installed_format_is_written_and_read(installed: Path, tmp_path: Path) -> None:
    variant = tmp_path / "variant"
    done = qtool(
        installed, "quantize", "reference-64", "--scheme", "w8a16", "--format", "bytes", "-q", "-o", str(variant)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((variant / "config.json").read_text())["quantization_config"]["quant_method"] == "bytes"
    verification = json.loads((variant / "variant.json").read_text())["verification"]
    assert verification["engine_tokens"] > 0
    refused = qtool(installed, "quantize", "reference-64", "--scheme", "w8a8", "--format", "bytes", "-q", "-o", "x")
    assert "'bytes' cannot hold w8a8; use compressed-tensors" in refused.stderr


def test_without_the_package_the_name_is_unknown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "qtool", "explain", "metric", "shouting"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "unknown metric 'shouting'" in done.stderr
