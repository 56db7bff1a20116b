"""Bad input, as a user meets it: one clear line, the right exit code, no traceback, nothing half-written."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qtool import reference
from qtool.cli import app

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def qtool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the program in an empty folder; returns its exit code and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["qtool", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            app.main()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), capsys.readouterr().err

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the smallest reference model that a test may damage."""
    return Path(shutil.copytree(reference.folder("reference-64"), tmp_path / "model"))


def _check(result: tuple[int, str], code: int, *expected: str) -> None:
    found, text = result
    assert found == code, text
    assert "Traceback" not in text
    for part in expected:
        assert part in text
    said = [line for line in text.splitlines() if line.startswith("qtool: ")]
    assert len(said) == 1, text


def test_a_missing_model_folder(qtool: Run) -> None:
    _check(qtool("quantize", "./absent", "--scheme", "w8a16", "-o", "out"), 3, "./absent", "no such folder")


def test_a_near_miss_of_a_reference_name(qtool: Run) -> None:
    _check(qtool("quantize", "reference-65", "--scheme", "w8a16", "-o", "out"), 10, "did you mean", "reference-64")


def test_a_truncated_checkpoint(qtool: Run, model: Path, tmp_path: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    _check(qtool("quantize", model, "--scheme", "w8a16", "-o", "out"), 3, "model.safetensors")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_tokenizer(qtool: Run, model: Path) -> None:
    (model / "tokenizer.json").unlink()
    _check(qtool("quantize", model, "--scheme", "w8a16", "-o", "out"), 3, "has no tokenizer")


def test_a_model_that_is_not_causal(qtool: Run, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
    (model / "config.json").write_text(json.dumps(config))
    _check(qtool("quantize", model, "--scheme", "w8a16", "-o", "out"), 3, "causal")


def test_a_checkpoint_that_is_pickle_only(qtool: Run, model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    _check(qtool("quantize", model, "--scheme", "w8a16", "-o", "out"), 3, "safetensors")


def test_an_unknown_scheme(qtool: Run) -> None:
    code, text = qtool("quantize", "reference-64", "--scheme", "w4a17", "-o", "out")
    assert code == 10
    assert "w4a16" in text
    assert "Traceback" not in text


def test_an_unknown_task(qtool: Run) -> None:
    _check(qtool("eval", "reference-64", "--task", "arithmetics", "-o", "out"), 10, "did you mean arithmetic")


def test_an_unknown_observer(qtool: Run) -> None:
    result = qtool("calibrate", "reference-64", "--set", "mixed", "--observer", "absmx", "-o", "out")
    _check(result, 10, "unknown observer", "absmax")


def test_an_unknown_calibration_set(qtool: Run) -> None:
    _check(qtool("calibrate", "reference-64", "--set", "mixd", "-o", "out"), 10, "did you mean mixed")


def test_an_empty_calibration_set(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    _check(qtool("calibrate", "reference-64", "--set", "empty.jsonl", "-o", "out"), 4, "empty", "yields no token")
    assert not (tmp_path / "out").exists()


def test_a_malformed_row_is_named_by_its_line(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n{"text": \n')
    _check(qtool("calibrate", "reference-64", "--set", "bad.jsonl", "-o", "out"), 4, "bad.jsonl:2", "not JSON")
    assert not (tmp_path / "out").exists()


def test_a_group_size_that_does_not_divide_lists_every_layer(qtool: Run, tmp_path: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "odd")
    for file in reference.folder("reference-64").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "odd")
    result = qtool("quantize", tmp_path / "odd", "--scheme", "w4a16", "--group-size", 64, "-o", "out")
    _check(result, 6, "model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj", "96")
    assert not (tmp_path / "out").exists()


def test_a_calibration_of_another_model(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("One plus one is two. " * 200)
    assert qtool("calibrate", "reference-128", "--set", "text.txt", "-o", "calibration", "--quiet")[0] == 0
    static = ("--scheme", "w8a8", "--activations", "static", "--observer", "absmax")
    result = qtool("quantize", "reference-64", *static, "--calibration", "calibration", "-o", "out")
    _check(result, 7, "calibration", "reference-128")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_exists(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    _check(qtool("quantize", "reference-64", "--scheme", "w8a16", "-o", "out"), 8, "already exists")
    assert (tmp_path / "out" / "mine").exists()


def test_a_folder_that_is_no_run(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, text = qtool("report", "empty")
    assert code in (2, 8)
    assert "empty" in text
    assert "Traceback" not in text


def test_a_bundle_that_is_none(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, text = qtool("serve", "empty")
    assert code == 8
    assert "bundle.json" in text
    assert "Traceback" not in text


def test_a_plan_with_two_mistakes_names_both(qtool: Run, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'base = "reference-64"\n[variants.a]\nscheme = "w4a17"\n[tasks.arithmetic]\nitem = 3\n'
    )
    code, text = qtool("run", "plan.toml")
    assert code == 10
    assert "plan.toml: variants.a.scheme" in text
    assert "plan.toml: tasks.arithmetic.item" in text
    assert not (tmp_path / "runs").exists()
