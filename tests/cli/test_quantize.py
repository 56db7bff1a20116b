"""`qtool quantize` and `qtool import` as a user types them."""

import json
from pathlib import Path

import pytest
import typer
from tiny_model import make_tiny_llama
from typer.testing import CliRunner

from qtool.cli import import_, quantize
from qtool.errors import PlanError, UnknownName, UsageError
from qtool.records.variant import Variant
from qtool.store.codec import read_json

app = typer.Typer()
app.command("quantize")(quantize.command)
app.command("import")(import_.command)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("base") / "llama")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_variant_is_written_and_summed_up(llama: Path, tmp_path: Path) -> None:
    text = run("quantize", llama, "--scheme", "w8a16", "-o", tmp_path / "v", "-q", "--verify-streamed")
    assert "variant v: w8a16 by rtn, per channel" in text
    assert "49 of 49 tensors bit-identical" in text
    assert "14 layers quantized, 1 kept, 0 fallbacks" in text
    assert read_json(Variant, tmp_path / "v" / "variant.json").name == "v"


def test_json_is_the_manifest(llama: Path, tmp_path: Path) -> None:
    output = tmp_path / "v"
    text = run("quantize", llama, "--scheme", "w8a8", "-o", output, "--name", "fast", "--json", "-q")
    assert json.loads(text) == json.loads((output / "variant.json").read_text())
    assert json.loads(text)["name"] == "fast"
    assert json.loads(text)["recipe"]["activations"] == "dynamic"


def test_group_size_is_the_widest_that_divides(llama: Path, tmp_path: Path) -> None:
    text = run("quantize", llama, "--scheme", "w4a16", "-o", tmp_path / "v", "--json", "-q", "--verify-streamed")
    assert json.loads(text)["recipe"]["group_size"] == 64


def test_method_options_and_overrides(llama: Path, tmp_path: Path) -> None:
    own = "model.layers.0.mlp.down_proj=w8a16"
    more = ("--set", "clip=mse", "--override", own, "--json", "-q", "--verify-streamed")
    document = json.loads(run("quantize", llama, "-o", tmp_path / "v", *more))
    assert document["recipe"]["options"] == [["clip", "mse"]]
    assert document["recipe"]["overrides"] == [["model.layers.0.mlp.down_proj", "w8a16"]]


def test_baseline_by_scheme(llama: Path, tmp_path: Path) -> None:
    document = json.loads(run("quantize", llama, "--scheme", "base", "-o", tmp_path / "v", "--json", "-q"))
    assert document["recipe"]["method"] == "baseline"


def test_plan_only_writes_nothing(llama: Path, tmp_path: Path) -> None:
    text = run("quantize", llama, "-o", tmp_path / "v", "--plan-only", "-q")
    assert "2 blocks" in text
    assert list(tmp_path.iterdir()) == []


def test_gptq_layout_and_import(llama: Path, tmp_path: Path) -> None:
    run("quantize", llama, "--format", "gptq", "-o", tmp_path / "v", "-q")
    document = json.loads(run("import", tmp_path / "v", "--base", llama, "-o", tmp_path / "in", "--json", "-q"))
    assert document["recipe"]["method"] == "imported"
    assert document["recipe"]["format"] == "gptq"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--scheme", "w5a16"), UnknownName, "did you mean w8a16"),
        (("--method", "gptqq"), UnknownName, "did you mean gptq"),
        (("--set", "clip"), UsageError, "write it as KEY=VALUE"),
        (("--scheme", "w8a8", "--format", "gptq"), PlanError, "cannot hold w8a8"),
        (("--group-size", "96"), PlanError, "96 does not go with w4a16"),
    ],
)
def test_mistakes_are_one_clear_answer(
    llama: Path, tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run("quantize", llama, "-o", tmp_path / "v", "-q", *arguments)
    assert list(tmp_path.iterdir()) == []
