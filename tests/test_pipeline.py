"""A run survives: it resumes after a kill, skips what is unchanged, and refuses company."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qtool.bundle.stage import bundle
from qtool.errors import MismatchError, QuantizationError, StoreError, UnverifiedVariant
from qtool.pipeline import stages
from qtool.pipeline.plan import read_plan
from qtool.progress import Advance
from qtool.records.plan import Plan
from qtool.records.report import Report
from qtool.records.variant import Variant
from qtool.report.unchanged import refuse_changed
from qtool.store.codec import read_json
from qtool.store.run_directory import locked, write_record

PLAN = """
base = "reference-64"
name = "small"
[calibration]
sequences = 8
sequence_tokens = 64
[variants.w8a8-static]
scheme = "w8a8"
activations = "static"
observer = "absmax"
[variants.w4a16]
scheme = "w4a16"
group_size = 32
[tasks.arithmetic]
items = 24
[tasks.facts]
items = 24
[latency]
concurrency = [1]
requests = 5
prompt_tokens = 16
output_tokens = 4
"""


class Notes:
    """A progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def track(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        yield lambda units: None

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.toml"
    path.write_text(PLAN)
    return path


@pytest.fixture(scope="module")
def plan(plan_path: Path) -> Plan:
    return read_plan(plan_path)


@pytest.fixture(scope="module")
def finished(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    stages.run(plan, folder, progress=Notes(), command="qtool run plan.toml")
    return folder


def test_a_run_leaves_every_artifact_of_the_design(finished: Path) -> None:
    expected = ["plan.lock.json", "calibration/calibration.json", "report.json", "report.md", "report.html"]
    for variant in ("baseline", "w8a8-static", "w4a16"):
        expected += [f"variants/{variant}/variant.json", f"latency/{variant}.json"]
        expected += [f"evaluations/{variant}/{task}.json" for task in ("arithmetic", "facts")]
        expected += [f"evaluations/{variant}/{task}.items.jsonl" for task in ("arithmetic", "facts")]
    assert [name for name in expected if not (finished / name).is_file()] == []
    assert not list(finished.rglob("*.partial"))


def test_every_item_of_every_variant_is_kept(finished: Path) -> None:
    for variant in ("baseline", "w8a8-static", "w4a16"):
        lines = (finished / f"evaluations/{variant}/arithmetic.items.jsonl").read_text().splitlines()
        assert len({json.loads(line)["id"] for line in lines}) == 24


def test_an_equal_run_skips_everything_and_says_so(finished: Path, plan: Plan) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    notes = Notes()
    stages.run(plan, finished, progress=notes, command="qtool run plan.toml")
    skipped = [line for line in notes.lines if line.endswith("unchanged, skipped")]
    # calibrate, 3 variants, 3 x 2 evaluations, latency
    assert len(skipped) >= 1 + 3 + 6 + 1
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == before


def test_two_flipped_bytes_are_told_and_the_variant_is_made_again(finished: Path, plan: Plan) -> None:
    variant = finished / "variants" / "w4a16"
    weights = variant / "model.safetensors"
    weights = weights if weights.is_file() else sorted(variant.glob("*.safetensors"))[0]
    before = weights.read_bytes()
    weights.write_bytes(before[:-2] + bytes(255 - byte for byte in before[-2:]))
    with pytest.raises(MismatchError, match=r"w4a16: its weights or config\.json are not those"):
        refuse_changed(finished)
    with pytest.raises(MismatchError, match="not those that were evaluated"):
        bundle(finished, variant="w4a16", output=finished / "b", progress=Notes())
    notes = Notes()
    stages.run(plan, finished, progress=notes, command="qtool run plan.toml")
    assert (
        f"quantize:w4a16: variants/w4a16/{weights.name} is not what this stage wrote; it is made again" in notes.lines
    )
    assert "quantize:w8a8-static: unchanged, skipped" in notes.lines
    assert weights.read_bytes() == before
    refuse_changed(finished)


def test_a_variant_that_fails_its_verification_is_left_out_and_told_at_the_end(
    finished: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = stages.make

    def failing(run: Any, name: str, recipe: Any) -> None:
        if name == "w8a8-static":
            path = run.parts.variant(name) / "variant.json"
            made = read_json(Variant, path)
            write_record(path, replace(made, verification=replace(made.verification, problem="other tokens")))
            raise UnverifiedVariant(str(path.parent), "other tokens")
        honest(run, name, recipe)

    monkeypatch.setattr(stages, "make", failing)
    folder, notes = tmp_path / "copy", Notes()
    shutil.copytree(finished, folder)
    with pytest.raises(QuantizationError, match="finished without w8a8-static, which failed verification: "):
        stages.run(plan, folder, progress=notes, command="qtool run plan.toml")
    assert any(line.endswith("; the run goes on without it") for line in notes.lines)
    report = read_json(Report, folder / "report.json")
    assert "variant w8a8-static: failed verification, may not be shipped: other tokens" in report.notes


def test_another_margin_judges_again_without_quantizing_again(finished: Path, plan: Plan) -> None:
    notes = Notes()
    tasks = (replace(plan.tasks[0], margin_points=50.0), *plan.tasks[1:])
    report = stages.run(replace(plan, tasks=tasks), finished, progress=notes, command="qtool run plan.toml")
    assert "quantize:w4a16: unchanged, skipped" in notes.lines
    comparison = report.rows[-1].evaluations[0].comparison
    assert comparison is not None
    assert comparison.margin == 0.5


def test_a_folder_of_another_base_model_is_refused(finished: Path, plan: Plan) -> None:
    with pytest.raises(MismatchError, match="another base model"):
        stages.run(replace(plan, base="reference-128"), finished, progress=Notes(), command="")


def test_a_second_run_on_the_same_folder_is_refused(plan: Plan, tmp_path: Path) -> None:
    lock = tmp_path / ".small.run.lock"
    with locked(lock, holds="first"), pytest.raises(StoreError, match="another qtool process"):
        stages.run(plan, tmp_path / "small", progress=Notes(), command="")


@pytest.mark.parametrize("after", ["calibration", "variants/w8a8-static", "evaluations/baseline/arithmetic.json"])
def test_a_run_killed_at_any_stage_resumes_to_the_same_artifacts(
    plan_path: Path, plan: Plan, finished: Path, tmp_path: Path, after: str
) -> None:
    folder = tmp_path / "small"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "qtool", "run", str(plan_path), "-o", str(folder), "--quiet"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / after).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / after).exists()
    stages.run(plan, folder, progress=Notes(), command="qtool run plan.toml")
    for variant in ("baseline", "w8a8-static", "w4a16"):
        ours, theirs = (
            json.loads((root / f"variants/{variant}/variant.json").read_text()) for root in (folder, finished)
        )
        assert ours["weights_digest"] == theirs["weights_digest"]
    for task in ("arithmetic", "facts"):
        ours, theirs = (
            [json.loads(line) for line in (root / f"evaluations/w4a16/{task}.items.jsonl").read_text().splitlines()]
            for root in (folder, finished)
        )
        assert [(line["id"], line["output"]) for line in ours] == [(line["id"], line["output"]) for line in theirs]
