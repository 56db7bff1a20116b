"""A GGUF file, in one part or several, taken apart: its config, tokenizer and tensors by transformers' names."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qtool.errors import ModelError
from qtool.formats.gguf.note import KEPT_AS_CODES
from qtool.formats.stored_weights import StoredWeight

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_ROTARY = "rope_freqs.weight"
_FAULTS = (ValueError, KeyError, IndexError, TypeError, OverflowError, OSError, MemoryError, NotImplementedError)


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One tensor of the file by transformers' name: codes and scales as they lie there, or numbers."""

    name: str
    kind: str
    codes: StoredWeight | None
    values: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class GgufFile:
    """An opened file: `path` is its first part, `readers` all of them in order."""

    path: Path
    readers: tuple[Any, ...]

    @property
    def tensors(self) -> Iterator[Any]:
        """Every tensor of every part."""
        return (tensor for reader in self.readers for tensor in reader.tensors)

    @property
    def count(self) -> int:
        """How many tensors there are."""
        return sum(len(reader.tensors) for reader in self.readers)

    @property
    def bytes(self) -> int:
        """Size of all parts."""
        return sum(int(reader.data.nbytes) for reader in self.readers)

    def kinds(self) -> dict[str, int]:
        """Matrices by block type."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            if len(tensor.shape) > 1:
                found[tensor.tensor_type.name] = found.get(tensor.tensor_type.name, 0) + 1
        return dict(sorted(found.items()))


def open_gguf(path: Path) -> GgufFile:
    """The file at `path` with all its parts. Raises ModelError for one that is damaged, of a type the `gguf` package
    does not know, of another byte order, or incomplete."""
    parts = _parts(path)
    return GgufFile(parts[0], tuple(_reader(part) for part in parts))


def config_of(file: GgufFile) -> Any:
    """The config transformers makes of the file. Raises ModelError for an architecture it does not know."""
    from transformers import AutoConfig

    with _explained(file.path, "its architecture or config is not one transformers reads"):
        config = AutoConfig.from_pretrained(file.path.parent, gguf_file=file.path.name)
    names = {tensor.name for tensor in file.tensors}
    if _ROTARY in names:
        raise ModelError(f"{file.path}: stretches rotary positions ({_ROTARY}), which transformers does not read")
    config.tie_word_embeddings = "output.weight" not in names
    return config


def tokenizer_of(file: GgufFile) -> Any:
    """The tokenizer transformers makes of the file. Raises ModelError for one it does not know."""
    from transformers import AutoTokenizer

    with _explained(file.path, "its tokenizer is not one transformers reads"):
        return AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)


def pieces(file: GgufFile, config: Any, *, linears: frozenset[str], skeleton: Any) -> Iterator[Piece]:
    """Every tensor, those of the layers `linears` as codes where their type can be kept. `skeleton` is the model
    without weights. Raises ModelError for a tensor that belongs to no part of the model."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    architecture = str(file.readers[0].fields["general.architecture"].contents())
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
    names = get_gguf_hf_weights_map(skeleton, processor)

    def turned(values: NDArray[Any], name: str) -> Tensor:
        """`values` with their rows in transformers' order."""
        done = processor.process(weights=values, name=name, tensor_key_mapping=names, parsed_parameters={"tensors": {}})
        return torch.from_numpy(np.array(done.weights))

    for tensor in file.tensors:
        name = names.get(tensor.name)
        if name is None or "_exps." in tensor.name:
            raise ModelError(f"{file.path}: tensor {tensor.name!r} has no place in {type(skeleton).__name__}")
        kind = tensor.tensor_type.name
        with _explained(file.path, f"tensor {tensor.name!r} of type {kind} cannot be read"):
            if kind in KEPT_AS_CODES and name.removesuffix(".weight") in linears:
                yield Piece(name, kind, _codes(tensor, turned), None)
            else:
                yield Piece(name, kind, None, _values(tensor, turned))


def _codes(tensor: Any, turned: Callable[[NDArray[Any], str], Tensor]) -> StoredWeight:
    """A matrix of Q4_0 or Q8_0 as signed codes and float32 scales, one for 32 columns."""
    bits = 4 if tensor.tensor_type.name == "Q4_0" else 8
    blocks = np.ascontiguousarray(tensor.data).reshape(tensor.data.shape[0], -1, 18 if bits == 4 else 34)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    if bits == 8:
        codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    else:
        halves = np.stack((blocks[..., 2:] & 0x0F, blocks[..., 2:] >> 4), axis=-2)
        codes = halves.reshape(*blocks.shape[:2], 32).astype(np.int8) - 8
    flat = codes.reshape(codes.shape[0], -1)
    return StoredWeight(turned(flat, tensor.name), turned(scales, tensor.name), None, bits, 32)


def _values(tensor: Any, turned: Callable[[NDArray[Any], str], Tensor]) -> Tensor:
    """The numbers of a tensor: in its own type where that is a plain 16-bit one, else float32 as `gguf` makes them."""
    import gguf

    values = turned(gguf.dequantize(tensor.data, tensor.tensor_type), tensor.name)
    own = {"F16": torch.float16, "BF16": torch.bfloat16}.get(tensor.tensor_type.name, torch.float32)
    return values.to(own)


def _parts(path: Path) -> list[Path]:
    found = _PART.fullmatch(path.name)
    if found is None:
        return [path]
    count = int(found[3])
    parts = [path.with_name(f"{found[1]}-{index:05}-of-{count:05}.gguf") for index in range(1, count + 1)]
    for part in parts:
        if not part.is_file():
            raise ModelError(f"{part}: missing; {path.name} is one of {count} parts, which belong into one folder")
    return parts


def _reader(path: Path) -> Any:
    import gguf

    with _explained(path, "is no whole GGUF file of a kind the package 'gguf' reads"):
        reader = gguf.GGUFReader(str(path))
    if reader.byte_order == "S":
        raise ModelError(f"{path}: was written for processors of the other byte order; convert it with gguf-py first")
    count = reader.fields.get("split.count")
    parts = _PART.fullmatch(path.name)
    if count is not None and int(count.contents()) > 1 and parts is None:
        raise ModelError(f"{path}: is one of {int(count.contents())} parts; keep their names (...-00001-of-0000N.gguf)")
    return reader


class _explained:
    """Turns what `gguf` and transformers raise at a file they cannot read into one ModelError."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _FAULTS) and not isinstance(error, ModelError):
            lines = str(error).strip().splitlines()
            raise ModelError(
                f"{self._path}: {self._what} ({lines[0][:200] if lines else type(error).__name__})"
            ) from error
