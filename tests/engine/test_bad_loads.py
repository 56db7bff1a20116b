"""A model that cannot be loaded is refused in one line, and engines that run go on as if nothing had happened."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from qtool.engine.contract import Engine, GenerationRequest
from qtool.engine.drive import generate
from qtool.engine.load import open_engine
from qtool.errors import ModelError
from qtool.progress import Silent
from qtool.quantize.stage import quantize
from qtool.records.variant import Recipe
from tests.tiny_model import make_tiny_llama

REQUEST = GenerationRequest((5, 6, 7, 8), 8)


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = make_tiny_llama(tmp_path_factory.mktemp("bad") / "base", tied=True)
    recipe = Recipe("w4a16", "rtn", group_size=32)
    quantize(base, recipe, base.parent / "variant", name="w", calibration=None, progress=Silent(), whole_check=False)
    return base.parent / "variant"


def _shard(folder: Path) -> Path:
    return sorted(folder.glob("*.safetensors"))[0]


def _cut_shard(folder: Path) -> None:
    path = _shard(folder)
    path.write_bytes(path.read_bytes()[:-64])


def _garbage_header(folder: Path) -> None:
    path = _shard(folder)
    path.write_bytes(b"\xff" * 16 + path.read_bytes()[16:])


def _no_shard(folder: Path) -> None:
    _shard(folder).unlink()


def _weights(key: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"]["config_groups"]["group_0"]["weights"][key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_cut_shard, "safetensors"),
        (_garbage_header, "safetensors"),
        (_no_shard, "safetensors"),
        (_weights("num_bits", 3), "3"),
        (_weights("strategy", "block"), "block"),
    ],
    ids=["cut shard", "garbage header", "no shard", "3 bits", "weights by block"],
)
def test_a_refused_load_changes_nothing_for_others(
    change: Callable[[Path], None], word: str, variant: Path, tmp_path: Path
) -> None:
    engine: Engine = open_engine(variant, slots=2)
    expected = generate(engine, [REQUEST])[0].ids
    number = engine.submit(REQUEST)
    tokens = [event.token for _ in range(3) for event in engine.step()]
    folder = tmp_path / "bad"
    shutil.copytree(variant, folder)
    change(folder)
    with pytest.raises(ModelError, match=word) as refused:
        open_engine(folder)
    assert "\n" not in str(refused.value)
    while engine.status().running:
        tokens += [event.token for event in engine.step() if event.request == number]
    assert tuple(tokens) == expected
