"""A model folder written as one GGUF file, and that file read back and compared number by number."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from qtool.errors import QuantizationError
from qtool.formats.gguf.blocks import Packed, exact, numbers, packed, plain
from qtool.formats.gguf.families import Family, Names, family_of, row_order, vector
from qtool.formats.gguf.keys import rotary_factors, write_keys
from qtool.formats.gguf.vocabulary import write_vocabulary
from qtool.formats.stored_format import read_weight, stored_formats
from qtool.formats.stored_weights import StoredFormat, StoredWeight
from qtool.formats.tensor_names import weights_as_used
from qtool.models.architecture import Architecture, describe
from qtool.models.checkpoint import Checkpoint

Embedding = Literal["keep", "f16", "q8_0"]
Advance = Callable[[int], None]

_OF_EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(\w+)")
_FILE_TYPES = {"Q4_0": "MOSTLY_Q4_0", "Q4_1": "MOSTLY_Q4_1", "Q8_0": "MOSTLY_Q8_0", "BF16": "MOSTLY_BF16"}
_OTHER_TYPES = {"F16": "MOSTLY_F16", "F32": "ALL_F32"}
_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Written:
    """What lies in the file: matrices by block type, how many were read back equal, bytes, and the scalars that the
    chosen type of embedding and head rounded."""

    kinds: tuple[tuple[str, int], ...]
    compared: int
    rounded: int
    bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The model to be written: its tensors by the model's names, and how each quantized layer is stored."""

    checkpoint: Checkpoint
    config: Any
    architecture: Architecture
    formats: dict[str, StoredFormat]
    family: Family
    names: Names
    embedding: Embedding

    def matrices(self) -> Iterator[tuple[str, list[str]]]:
        """Each matrix of the file with the model's layers it is made of: one, or every expert of a block in order."""
        experts: dict[str, list[str]] = {}
        names = self.checkpoint.names
        plain_names = (name for name in names if name.endswith(".weight") and len(self.checkpoint.shape(name)) == 2)
        layers = {name.removesuffix(".weight") for name in plain_names} | set(self.formats)
        for layer in sorted(layers):
            if found := _OF_EXPERT.fullmatch(layer):
                experts.setdefault(self.names.of_experts(int(found[1]), found[3]), []).append(layer)
            elif not (self.architecture.tied and layer == self.architecture.head):
                yield self.names.of(f"{layer}.weight"), [layer]
        for target, members in experts.items():
            yield target, sorted(members, key=lambda layer: int(layer.split(".")[-2]))

    def vectors(self) -> Iterator[tuple[str, str]]:
        """Each norm and bias: its name in the file, and the model's."""
        for name in self.checkpoint.names:
            if name.endswith((".weight", ".bias")) and len(self.checkpoint.shape(name)) == 1:
                yield self.names.of(name), name


def open_source(folder: Path, embedding: Embedding) -> Source:
    """The model in `folder`, quantized or not. Raises ModelError for one that GGUF has no place for."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    family = family_of(config, folder)
    architecture = describe(folder)
    checkpoint = weights_as_used(folder)
    formats = stored_formats(checkpoint, architecture.linears)
    names = Names(family, config.num_hidden_layers)
    return Source(checkpoint, config, architecture, formats, family, names, embedding)


def write_gguf(source: Source, target: Path, tokenizer: Any, *, name: str, pre: str | None, advance: Advance) -> None:
    """Writes `source` as the file `target`; `advance` is told of each matrix."""
    import gguf

    writer = gguf.GGUFWriter(str(target), source.family.name, use_temp_file=True)
    write_keys(writer, source.family, source.config, file_type=_file_type(source), name=name)
    write_vocabulary(writer, tokenizer, rows=source.config.vocab_size, pre=pre)
    for matrix, layers in source.matrices():
        blocks = [_matrix(source, layer) for layer in layers]
        data = np.stack([block.data for block in blocks]) if len(blocks) > 1 else blocks[0].data
        writer.add_tensor(matrix, data, raw_dtype=gguf.GGMLQuantizationType[blocks[0].kind])
        advance(len(layers))
    for matrix, own in source.vectors():
        values = vector(source.family, own, source.checkpoint.tensor(own))
        order = row_order(source.family, own, source.config)
        writer.add_tensor(matrix, (values if order is None else values[order]).contiguous().numpy())
    factors = rotary_factors(source.config)
    if factors is not None:
        writer.add_tensor(_FACTORS, factors.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_back(source: Source, target: Path, *, advance: Advance) -> Written:
    """Compares every number of the file with the number it stands for. Raises QuantizationError for any that is not
    the same, but for embedding and head where they were asked for in another type."""
    import gguf

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(str(target)).tensors}
    kinds: Counter[str] = Counter()
    rounded = 0
    for matrix, layers in source.matrices():
        tensor = stored.pop(matrix)
        kind = tensor.tensor_type.name
        parts = tensor.data if len(layers) > 1 else tensor.data[None]
        for layer, data in zip(layers, parts, strict=True):
            kinds[kind] += 1
            different = _different(source, layer, Packed(kind, data))
            if different and not (source.embedding != "keep" and layer not in source.formats):
                raise QuantizationError(f"{target}: {different} numbers of {layer} are not those of the variant")
            rounded += different
            advance(1)
    for matrix, own in source.vectors():
        values = vector(source.family, own, source.checkpoint.tensor(own))
        order = row_order(source.family, own, source.config)
        found = torch.from_numpy(np.array(stored.pop(matrix).data, dtype=np.float32))
        if not torch.equal(found, values if order is None else values[order]):
            raise QuantizationError(f"{target}: {own} is not the variant's")
    stored.pop(_FACTORS, None)
    if stored:
        raise QuantizationError(f"{target}: {min(stored)} belongs to no tensor of the variant")
    return Written(tuple(sorted(kinds.items())), sum(kinds.values()), rounded, target.stat().st_size)


def _matrix(source: Source, layer: str) -> Packed:
    order = row_order(source.family, f"{layer}.weight", source.config)
    if layer in source.formats:
        return packed(_reordered(_weight(source, layer), order), layer)
    values = source.checkpoint.tensor(f"{layer}.weight")
    kind = {torch.float16: "F16", torch.bfloat16: "BF16"}.get(values.dtype, "F32")
    if layer in (source.architecture.embedding, source.architecture.head) and source.embedding != "keep":
        kind = source.embedding.upper()
    return plain(values if order is None else values[order], kind)


def _weight(source: Source, layer: str) -> StoredWeight:
    form = source.formats[layer]
    if form.activations != "none":
        raise QuantizationError(f"{layer}: 8-bit activations have no place in GGUF; convert a w8a16 or w4a16 variant")
    return read_weight(source.checkpoint, layer, form)


def _reordered(weight: StoredWeight, order: torch.Tensor | None) -> StoredWeight:
    if order is None:
        return weight
    zeros = None if weight.zeros is None else weight.zeros[order]
    return StoredWeight(
        weight.codes[order], weight.scales[order], zeros, weight.bits, weight.group_size, weight.group_of_column
    )


def _different(source: Source, layer: str, block: Packed) -> int:
    """How many numbers of `block` differ from those of `layer`."""
    order = row_order(source.family, f"{layer}.weight", source.config)
    if layer in source.formats:
        wanted = exact(_weight(source, layer))
    else:
        wanted = source.checkpoint.tensor(f"{layer}.weight").float()
    found = numbers(block)
    return int((found != (wanted if order is None else wanted[order])).sum())


def _file_type(source: Source) -> str:
    """llama.cpp's name for the type most of the matrices are in."""
    names = [layer for _, layers in source.matrices() for layer in layers if layer in source.formats]
    if not names:
        kinds = Counter(_matrix(source, layer).kind for _, layers in source.matrices() for layer in layers[:1])
        kind = kinds.most_common(1)[0][0]
        return {**_FILE_TYPES, **_OTHER_TYPES}[kind]
    form = source.formats[names[0]]
    kind = "Q8_0" if form.bits == 8 else "Q4_0" if form.symmetric else "Q4_1"
    return _FILE_TYPES[kind]
