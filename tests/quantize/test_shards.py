"""The files of a variant: one, or shards of at most a size, joined by copying bytes, at any moment interrupted."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qtool.models.checkpoint import open_checkpoint
from qtool.quantize.blocks import shards

TENSORS = [
    {"a.weight": torch.arange(12, dtype=torch.float32).view(3, 4), "a.bias": torch.ones(3, dtype=torch.bfloat16)},
    {"b.codes": torch.arange(7, dtype=torch.int8), "b.scale": torch.full((2,), 3.0)},
    {"c.weight": torch.zeros(5, 5, dtype=torch.float16), "c.shape": torch.tensor([5, 5])},
]


def write_parts(folder: Path) -> list[Path]:
    files = []
    for index, tensors in enumerate(TENSORS):
        files.append(folder / f"part-{index}.safetensors")
        save_file(tensors, files[-1], {"format": "pt"})
    return files


def sizes() -> list[dict[str, int]]:
    return [{name: tensor.nbytes for name, tensor in tensors.items()} for tensors in TENSORS]


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("model*.safetensors") for name, tensor in load_file(path).items()}


def assert_whole(folder: Path) -> None:
    held = read_all(folder)
    wanted = {name: tensor for tensors in TENSORS for name, tensor in tensors.items()}
    assert held.keys() == wanted.keys()
    assert all(torch.equal(held[name], wanted[name]) and held[name].dtype is wanted[name].dtype for name in wanted)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert set(open_checkpoint(folder).names) == set(wanted)


def test_a_small_variant_is_one_file_without_an_index(tmp_path: Path) -> None:
    shards.join_parts(tmp_path, write_parts(tmp_path), sizes())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert_whole(tmp_path)


def test_a_large_one_is_shards_with_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LARGEST", 60)
    shards.join_parts(tmp_path, write_parts(tmp_path), sizes())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 4
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for part in TENSORS for tensor in part.values())
    assert not list(tmp_path.glob("part*"))
    assert_whole(tmp_path)


def test_joining_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LARGEST", 60)
    files, honest, written = write_parts(tmp_path), shards._write_shard, []

    def second_fails(path: Path, pieces: list[shards._Piece]) -> None:
        written.append(path.name)
        if len(written) == 2:
            path.with_name(path.name + ".partial").write_bytes(b"half")
            raise KeyboardInterrupt
        honest(path, pieces)

    monkeypatch.setattr(shards, "_write_shard", second_fails)
    with pytest.raises(KeyboardInterrupt):
        shards.join_parts(tmp_path, files, sizes())
    assert not files[0].exists()
    shards.join_parts(tmp_path, files, sizes())
    assert len(set(written)) == 4
    assert_whole(tmp_path)
