"""`qtool choose`: limits are kept, broken or undecided by bounds, at the load that was asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import latency, write_run
from typer.testing import CliRunner

import qtool
from qtool.cli.app import app
from qtool.errors import UnknownName, UsageError
from qtool.store.run_directory import write_record, write_text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "demo")


def test_without_limits_the_fastest_that_passes_is_chosen(run: Path) -> None:
    found = qtool.choose(run)
    assert (found.verdict, found.recommended, found.runner_up) == ("PASS", "w8a16", "baseline")
    by_name = {each.variant: each for each in found.candidates}
    assert by_name["w4a16"].verdict == "FAIL"
    assert by_name["w4a16-g64"].verdict == "UNDECIDED"
    (check,) = [check for check in by_name["w4a16-g64"].checks if check.verdict == "UNDECIDED"]
    assert "--until-decided 4200" in check.command


def test_a_wider_drop_decides_by_the_same_bounds(run: Path) -> None:
    found = qtool.choose(run, max_drop=["arithmetic=1.5", "facts=2"])  # bounds of w4a16-g64: -1.2 to -0.4 points
    assert found.recommended == "w4a16-g64"
    tight = qtool.choose(run, max_drop=["arithmetic=0.3"])
    verdicts = {each.variant: each.verdict for each in tight.candidates}
    assert verdicts == {
        "baseline": "PASS",
        "w8a16": "UNDECIDED",
        "w4a16-g64": "FAIL",
        "w4a16": "FAIL",
        "w8a8": "UNDECIDED",
    }


def test_a_time_limit_is_judged_at_the_load_or_the_next_higher(run: Path) -> None:
    # p95 of w8a16 with 8 in flight: 49 ms [45.5, 60.6]
    for limit, verdict in [("61ms", "PASS"), ("50ms", "UNDECIDED"), ("45ms", "FAIL")]:
        for load in (8, 5, None):
            found = qtool.choose(run, p95_e2e=limit, load=load)
            assert next(each for each in found.candidates if each.variant == "w8a16").verdict == verdict
    low = qtool.choose(run, p95_e2e="45ms", load=1)
    assert next(each for each in low.candidates if each.variant == "w8a16").verdict == "PASS"


def test_a_load_that_was_not_timed_is_undecided_and_says_how_to_time_it(run: Path) -> None:
    found = qtool.choose(run, p95_ttft="300ms", load=64)
    assert (found.verdict, found.recommended) == ("UNDECIDED", None)
    check = found.candidates[0].checks[-1]
    assert check.reason == "not timed with 64 in flight, only up to 8"
    assert "qtool bench demo/variants/baseline demo/variants/w8a16" in check.command
    assert "-c 64" in check.command


def test_a_quantile_without_bounds_decides_nothing(run: Path) -> None:
    profile = latency("w8a16", 10.9)
    levels = tuple(
        replace(level, e2e=tuple(replace(entry, interval=None) for entry in level.e2e)) for level in profile.levels
    )
    write_record(run / "latency" / "w8a16.json", replace(profile, levels=levels))
    found = qtool.choose(run, p95_e2e="1s")
    check = next(each for each in found.candidates if each.variant == "w8a16").checks[-1]
    assert check.verdict == "UNDECIDED"
    assert "too few for bounds" in check.reason


def test_memory_and_cost_are_limits(run: Path) -> None:
    assert qtool.choose(run, max_memory="240MB").verdict == "PASS"
    assert qtool.choose(run, max_memory="0.2GB").verdict == "FAIL"
    found = qtool.choose(run, max_cost=0.001, dollars_per_hour=1.0)
    assert found.verdict == "FAIL"
    assert all(
        check.verdict == "FAIL" for each in found.candidates for check in each.checks if "million" in check.limit
    )


def test_instances_hold_weights_and_the_cache_of_context_and_load(run: Path) -> None:
    config = '{"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128}'
    write_text(run / "variants" / "baseline" / "config.json", config)
    found = qtool.choose(run, card="1GB", context=1000, load=8)
    each = next(each for each in found.candidates if each.variant == "w8a16")
    assert each.instance_bytes == 960_000 + 8 * 1000 * (2 * 4 * 2 * 32 * 2)
    assert each.instances == int(0.9e9 // each.instance_bytes)
    assert "a cache of 1.02 KB a token for 1,000 tokens" in dict(found.assumptions)["instances"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-memory", "8"], "write a number above 0 with its unit"),
        (["--p95-ttft", "-3ms"], "300ms"),
        (["--max-drop", "arithmetic"], "TASK=POINTS"),
        (["--max-drop", "arithmetik=1"], "did you mean arithmetic?"),
        (["--machine", "h2000"], "h200"),
    ],
)
def test_bad_limits_are_refused_in_one_line(run: Path, words: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["choose", str(run), *words])
    assert isinstance(found.exception, UsageError | UnknownName)
    assert said in str(found.exception)


def test_the_verdict_is_the_exit_code(run: Path) -> None:
    for words, code in [([], 0), (["--max-memory", "1MB"], 1), (["--load", "64", "--p95-e2e", "1s"], 2)]:
        found = CliRunner().invoke(app, ["choose", str(run), *words])
        assert found.exit_code == code
    assert "breaks" in CliRunner().invoke(app, ["choose", str(run)]).stdout
