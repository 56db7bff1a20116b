"""A GGUF file as a model folder: Q4_0 and Q8_0 keep their codes, every other type becomes the numbers it stands for."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtool.formats.gguf.note import GGUF_NOTE, GgufNote
from qtool.formats.gguf.read import GgufFile, Piece, config_of, open_gguf, pieces, tokenizer_of
from qtool.store.run_directory import new_folder, write_record, write_text

_SHARD_BYTES = 5_000_000_000


def folder_of(path: Path) -> Path:
    """The model folder made of the file at `path`, made once and kept in the user's cache."""
    file = open_gguf(path)
    target = _cache() / f"{path.stem}-{_digest(file)[:16]}"
    if not (target / GGUF_NOTE).is_file():
        take_in(file, target)
    return target


def take_in(file: GgufFile, target: Path) -> None:
    """Writes the new model folder `target` from `file`. Raises ModelError for what cannot be read."""
    from transformers import AutoModelForCausalLM

    config = config_of(file)
    tokenizer = tokenizer_of(file)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    linears = frozenset(
        name
        for name, module in skeleton.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not skeleton.get_output_embeddings()
    )
    with new_folder(target, replace=True) as folder:
        writer = _Shards(folder)
        kept: dict[str, int] = {}
        for piece in pieces(file, config, linears=linears, skeleton=skeleton):
            if piece.codes is not None:
                kept[piece.name.removesuffix(".weight")] = piece.codes.bits
            writer.add(_tensors(piece))
        writer.finish()
        document = config.to_dict()
        document["architectures"] = [type(skeleton).__name__]
        document["dtype"] = str(writer.main_dtype()).removeprefix("torch.")
        document.pop("torch_dtype", None)
        if kept:
            document["quantization_config"] = _quantization(kept, linears)
        write_text(folder / "config.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        tokenizer.save_pretrained(folder)
        note = GgufNote(file.path.name, file.bytes, tuple(file.kinds().items()), len(kept))
        write_record(folder / GGUF_NOTE, note)


class _Shards:
    """Tensors gathered into files of at most `_SHARD_BYTES`, with an index where there is more than one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Tensor] = {}
        self._sizes: dict[torch.dtype, int] = {}
        self._places: list[list[str]] = []

    def add(self, tensors: dict[str, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in (*self._held.values(), *tensors.values()))
        if self._held and size > _SHARD_BYTES:
            self._write()
        self._held |= tensors
        for tensor in tensors.values():
            if tensor.is_floating_point():
                self._sizes[tensor.dtype] = self._sizes.get(tensor.dtype, 0) + tensor.nbytes

    def finish(self) -> None:
        self._write()
        if len(self._places) == 1:
            (self._folder / _part(0)).rename(self._folder / "model.safetensors")
            return
        weight_map = {name: _part(index) for index, names in enumerate(self._places) for name in names}
        index = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2)
        write_text(self._folder / "model.safetensors.index.json", index + "\n")

    def main_dtype(self) -> torch.dtype:
        return max(self._sizes, key=lambda dtype: self._sizes[dtype])

    def _write(self) -> None:
        from safetensors.torch import save_file

        save_file(self._held, self._folder / _part(len(self._places)), metadata={"format": "pt"})
        self._places.append(list(self._held))
        self._held = {}


def _part(index: int) -> str:
    return f"model-part-{index + 1:05}.safetensors"


def _tensors(piece: Piece) -> dict[str, Tensor]:
    if piece.codes is None:
        assert piece.values is not None
        return {piece.name: piece.values.contiguous()}
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    layer, codes = piece.name.removesuffix(".weight"), piece.codes
    return {
        f"{layer}.weight_packed": pack_to_int32(codes.codes.contiguous(), codes.bits),
        f"{layer}.weight_scale": codes.scales.contiguous(),
        f"{layer}.weight_shape": torch.tensor(codes.codes.shape, dtype=torch.int64),
    }


def _quantization(kept: dict[str, int], linears: frozenset[str]) -> dict[str, Any]:
    """The config entry of the layers that keep their codes, by bits."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

    groups = {}
    for bits in sorted(set(kept.values())):
        weights = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=32)
        named = sorted(layer for layer, width in kept.items() if width == bits)
        groups[f"group_{bits}"] = QuantizationScheme(targets=named, weights=weights, format="pack-quantized")
    config = QuantizationConfig(
        config_groups=groups,
        quant_method="compressed-tensors",
        quantization_status="compressed",
        format="pack-quantized",
        ignore=["lm_head", *sorted(linears - set(kept))],
    )
    document: dict[str, Any] = config.model_dump(mode="json")
    return document


def _digest(file: GgufFile) -> str:
    found = hashlib.sha256()
    for reader in file.readers:
        found.update(memoryview(reader.data))
    return found.hexdigest()


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "qtool" / "gguf"
