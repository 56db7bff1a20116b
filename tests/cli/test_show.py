"""`qtool show` on every kind of folder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import certified, write_run
from typer.testing import CliRunner

from qtool.cli.app import app
from qtool.errors import StoreError
from qtool.records.calibration import Calibration
from qtool.records.variant import Variant
from qtool.report.stage import report
from qtool.report.texts.folder import describe
from qtool.report.texts.variant_text import variant_text
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("variants/w4a16", ("variant w4a16", "mlp.down_proj", "w4a16 -> w8a16", "not a multiple of 64")),
        ("calibration", ("calibration of reference-128", "arithmetic", "absmax")),
        (".", ("run demo, no report yet", "w4a16-g64")),
    ],
)
def test_says_what_a_folder_is_and_how_it_was_made(tmp_path: Path, part: str, words: tuple[str, ...]):
    text = describe(write_run(tmp_path / "demo") / part).text
    for word in words:
        assert word in text


def test_the_ledger_is_shown_with_every_column(tmp_path: Path):
    run = write_run(tmp_path / "demo")
    variant = read_json(Variant, run / "variants" / "w4a16" / "variant.json")
    row = replace(variant.layers[0], output_error=0.0123, tokens_seen=4096, damping=0.01, dead_columns=3)
    text = variant_text(replace(variant, layers=(row,)))
    head, _, cells = text.splitlines()[-3:]
    for column in ("output error", "tokens", "damping", "dead", "clipped", "reason"):
        assert column in head
    assert cells[head.index("output error") :].split()[:4] == ["0.0123", "4,096", "0.01", "3"]


def test_a_calibration_says_whether_it_was_enough_and_which_inputs_decide(tmp_path: Path):
    run = write_run(tmp_path / "demo")
    path = run / "calibration" / "calibration.json"
    plain = read_json(Calibration, path)
    ranges = tuple(replace(plain.ranges[0], layer=layer, observer="absmax") for layer in ("a", "b", "c"))
    write_record(path, replace(certified(plain), ranges=ranges))
    lines = describe(run / "calibration").text.splitlines()
    assert "MORE SAMPLES: " in lines[3]
    assert "would do" in lines[3]
    worst = next(index for index, line in enumerate(lines) if line.startswith("input that matters most"))
    cells = lines[worst + 2].split()
    # half of 1.5 to 2.5 around a range of 2; the settled input comes after it
    assert cells[0] == "model.layers.1.mlp.down_proj"
    assert "640" in cells
    assert "±25.0" in cells
    assert lines[worst + 3].startswith("model.layers.0.mlp.up_proj")
    ranges_head = next(index for index, line in enumerate(lines) if line.startswith("layer: range"))
    assert [line.split()[0] for line in lines[ranges_head + 2 : ranges_head + 4]] == ["c", "a"]
    shown = CliRunner().invoke(app, ["show", str(run / "calibration"), "--json"])
    assert json.loads(shown.stdout)["certificate"]["needed_sequences"] == 640


def test_many_inputs_are_cut_to_those_that_matter(tmp_path: Path):
    run = write_run(tmp_path / "demo")
    path = run / "calibration" / "calibration.json"
    plain = read_json(Calibration, path)
    ranges = tuple(replace(plain.ranges[0], layer=f"layer{index}") for index in range(20))
    write_record(path, replace(plain, ranges=ranges))
    assert describe(run / "calibration").text.endswith("(8 more layers in --json)")


def test_no_error_is_named_of_what_was_made_elsewhere(tmp_path: Path):
    made = read_json(Variant, write_run(tmp_path / "demo") / "variants" / "w4a16" / "variant.json")
    assert "largest weight error" in variant_text(made)
    imported = replace(made, recipe=replace(made.recipe, method="imported"), verification=None)
    assert "largest" not in variant_text(imported)
    assert "not verified: made elsewhere" in variant_text(imported)


def test_evaluations_and_latency_and_a_finished_run(tmp_path: Path):
    run = write_run(tmp_path / "demo")
    (run / "evaluations" / "w8a16" / "arithmetic.items.jsonl").write_text("")
    (run / "latency" / "w8a16.samples.json").write_text("{}")
    assert "evaluations of w8a16" in describe(run / "evaluations" / "w8a16").text
    assert "latency on 2-core machine" in describe(run / "latency").text
    report(run, command="qtool report demo")
    assert "run demo: qtool report demo" in describe(run).text


def test_a_base_model_folder_and_json(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    found = CliRunner().invoke(app, ["show", str(tmp_path), "--json"])
    assert json.loads(found.stdout)["architecture"] == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("name", "reason"), [("nothing", "no such folder"), ("empty", "no manifest"), ("x.partial", "not finished")]
)
def test_refuses_what_it_does_not_know(tmp_path: Path, name: str, reason: str):
    if name != "nothing":
        (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=reason):
        describe(tmp_path / name)
