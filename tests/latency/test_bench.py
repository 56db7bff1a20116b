"""`qtool bench` prints what was measured, names what is too small a sample, and says where a variant is slower."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qtool.cli import bench
from qtool.errors import MismatchError, UsageError
from qtool.front_door.timing import task_lengths
from qtool.latency.cold_start import ColdStart
from qtool.latency.rounds import requests_at
from qtool.latency.summary import beside, text
from qtool.latency.timing import Load
from qtool.progress import Silent
from qtool.quantize.stage import quantize
from qtool.records.evaluation import Interval
from qtool.records.latency import LatencyProfile, LoadLevel, MachineState, Quantile
from qtool.records.plan import LatencySettings
from qtool.records.variant import Recipe
from tests.tiny_model import make_tiny_llama

app = typer.Typer()
app.command()(bench.command)


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtool.latency.stage.cold_start", lambda folder, trial: ColdStart(1.0, 0.5, 1000))
    monkeypatch.setattr("qtool.latency.stage.measured_bandwidth", lambda device: 1e10)


def test_two_variants_side_by_side(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    asked = [str(base), str(base), "-o", str(tmp_path / "out"), "-c", "1", "-c", "2", "--requests", "6", "-q"]
    result = CliRunner().invoke(app, [*asked, "--prompt-tokens", "5", "--output-tokens", "4"])
    assert result.exit_code == 0, result.output
    assert "p99 (needs n 1000)" in result.output
    for word in ("ttft p50", "tpot p50", "itl p50", "e2e p50", "tok/s", "goodput", "1 in flight", "2 in flight"):
        assert word in result.output
    assert len(list((tmp_path / "out").glob("*.samples.json"))) == 2


def test_json_is_one_object_by_variant(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    shape = ["--prompt-tokens", "5", "--output-tokens", "3", "--requests", "2", "-c", "1"]
    result = CliRunner().invoke(app, [str(base), "-o", str(tmp_path / "out"), "--json", "-q", *shape])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["base"]["levels"][0]["requests"] == 2


def profile(name: str, tpot: tuple[float, float]) -> LatencyProfile:
    middle = Quantile(0.5, sum(tpot) / 2, Interval(*tpot), 30, 5)
    level = LoadLevel(8, 30, 64, 32, (middle,), (middle,), (middle,), (middle,), 100.0, 3.0)
    machine = MachineState("cpu", "cpu", 1, "2.13", 0.0, 0.0)
    return LatencyProfile(1, name, "d", machine, (level,), 0.1, 0.2, 1, 1, (), False, "0")


def test_slower_is_said_only_where_the_intervals_part() -> None:
    base = profile("base", (10.0, 12.0))
    assert beside(base, profile("w4a16", (11.0, 15.0))) == []
    (line,) = beside(base, profile("w4a16", (13.0, 15.0)))
    assert line.startswith("w4a16 is slower than base from 8 in flight on")
    assert "simulated" in text((replace(base, simulated=True),))


def with_levels(name: str, *tpots: tuple[float, float]) -> LatencyProfile:
    """A profile whose TPOT interval is one of `tpots` at 1, 2, 4 ... in flight."""
    levels = tuple(replace(profile(name, tpot).levels[0], concurrency=1 << power) for power, tpot in enumerate(tpots))
    return replace(profile(name, tpots[0]), levels=levels)


def test_from_which_load_on_a_variant_is_slower_is_said_and_not_more() -> None:
    base = with_levels("base", (10, 11), (10, 11), (10, 11))
    (faster, slower) = sorted(beside(base, with_levels("w4", (5, 6), (12, 13), (12, 13))))
    assert faster.startswith("w4 is faster than base at 1 in flight")
    assert slower.startswith("w4 is slower than base from 2 in flight on")
    (line,) = beside(base, with_levels("w4", (12, 13), (9, 12), (12, 13)))
    assert line.startswith("w4 is slower than base at 1, 4 in flight")


def test_lengths_come_from_a_task(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    prompt, answer = task_lengths("arithmetic", {"base": base})
    assert min(prompt, answer) > 1
    assert prompt + answer < 256
    shape = ["--task", "arithmetic", "--output-tokens", "2", "--requests", "2", "-c", "1"]
    result = CliRunner().invoke(app, [str(base), "-o", str(tmp_path / "out"), "--json", "-q", *shape])
    assert result.exit_code == 0, result.output
    level = json.loads(result.stdout)["base"]["levels"][0]
    assert (level["prompt_tokens"], level["output_tokens"]) == (prompt, 2)


def test_the_names_are_vllms(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    shape = ["--prompt-tokens", "5", "--output-tokens", "3", "--requests", "6", "-c", "1"]
    result = CliRunner().invoke(app, [str(base), "-o", str(tmp_path / "out"), "-q", *shape])
    assert result.exit_code == 0, result.output
    level = json.loads((tmp_path / "out" / "base.bench_serve.json").read_text())["closed-1"]
    assert (level["completed"], level["total_input_tokens"], level["total_output_tokens"]) == (6, 30, 18)
    assert level["p99_ttft_ms"] is None  # six samples
    for name in ("ttft", "tpot", "itl", "e2el"):
        assert 0 < level[f"median_{name}_ms"] < 60_000
    assert level["output_throughput"] == pytest.approx(18 / level["duration"])
    assert [len(gaps) for gaps in level["itls"]] == [2] * 6


def test_a_level_is_filled_however_few_requests_were_asked() -> None:
    assert requests_at(Load(100), LatencySettings(requests=24)) == 200
    assert requests_at(Load(4), LatencySettings(requests=24)) == 24
    assert requests_at(Load(100, rate_per_second=5.0), LatencySettings(requests=24)) == 24


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (["--rate", "nan"], "above 0"),
        (["--rate", "0"], "above 0"),
        (["--rate", "inf"], "above 0"),
        (["--backend", "openai"], "URL"),
        (["--prompt-tokens", "9999"], "context"),
    ],
)
def test_what_cannot_be_timed_is_refused_and_nothing_written(asked: list[str], word: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    result = CliRunner().invoke(app, [str(base), "-o", str(tmp_path / "out"), "-q", *asked])
    assert isinstance(result.exception, UsageError)
    assert word in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_fewer_slots_than_users_are_told(tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    shape = ["--prompt-tokens", "5", "--output-tokens", "2", "-c", "3", "--backend", "transformers"]
    result = CliRunner().invoke(app, [str(base), "-o", str(tmp_path / "out"), "-q", *shape])
    assert result.exit_code == 0, result.output
    assert "1 requests run at once here" in result.output


def test_a_variant_is_not_timed_beside_another_base(tmp_path: Path) -> None:
    first, second = (make_tiny_llama(tmp_path / name, seed=seed) for seed, name in enumerate(("first", "second")))
    recipe = Recipe(scheme="w8a16", method="rtn")
    quantize(first, recipe, tmp_path / "w8", name="w8", calibration=None, progress=Silent(), whole_check=False)
    result = CliRunner().invoke(app, [str(second), str(tmp_path / "w8"), "-o", str(tmp_path / "out"), "-q"])
    assert isinstance(result.exception, MismatchError)
    assert "second and w8 are of different base models" in str(result.exception)
    assert not (tmp_path / "out").exists()
