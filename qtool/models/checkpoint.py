"""A model folder's weights, opened lazily: tensors are read one at a time, never the whole file."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtool.errors import ModelError, NumericError, StoreError
from qtool.formats.gguf.note import GGUF_NOTE
from qtool.formats.safetensors_header import StoredTensor, read_header
from qtool.store.codec import read_json_object
from qtool.store.digest import folder_digest

INDEX_NAME = "model.safetensors.index.json"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
KEYS_OF_STORAGE = ("quantization_config", "compression_config")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True, eq=False)
class ComputedTensor:
    """A tensor that lies in the files in another form (fused, split, interleaved): `make` reads and converts it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    path: Path
    make: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        """Size of the tensor as the model holds it."""
        return math.prod(self.shape) * self.dtype.itemsize


class Checkpoint:
    """The tensors of one model folder by name. `config` is its config.json as a dict."""

    def __init__(
        self, folder: Path, config: dict[str, Any], tensors: Mapping[str, StoredTensor | ComputedTensor]
    ) -> None:
        self.folder = folder
        self.config = config
        self.names = tuple(sorted(tensors))
        self.shards = tuple(sorted({tensor.path.name for tensor in tensors.values()}))
        self.bytes = sum(tensor.bytes for tensor in tensors.values())
        self._tensors = tensors

    @property
    def entries(self) -> Mapping[str, StoredTensor | ComputedTensor]:
        """Where each tensor lies."""
        return self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of tensor `name`, without reading it."""
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """Type of tensor `name`, without reading it."""
        return self._entry(name).dtype

    def tensor_bytes(self, name: str) -> int:
        """Size of tensor `name` on disk."""
        return self._entry(name).bytes

    def tensor(self, name: str) -> Tensor:
        """Tensor `name`, read from disk into memory of its own."""
        entry = self._entry(name)
        if isinstance(entry, ComputedTensor):
            return entry.make()
        if entry.transposed:
            return _read(entry, name, entry.offset, entry.shape[::-1]).t().contiguous()
        return _read(entry, name, entry.offset, entry.shape)

    def sound_tensor(self, name: str) -> Tensor:
        """Tensor `name`. Raises NumericError where it holds NaN or infinity."""
        tensor = self.tensor(name)
        if tensor.is_floating_point() and tensor.dtype.itemsize > 1 and not bool(torch.isfinite(tensor).all()):
            wrong = int((~torch.isfinite(tensor)).sum())
            raise NumericError(f"{self.folder}: {name}: {wrong} of its values are NaN or infinite")
        return tensor

    def refuse_nonfinite(self) -> None:
        """Raises NumericError naming the first tensor that holds NaN or infinity; each is read once."""
        for name in self.names:
            self.sound_tensor(name)

    def rows(self, name: str, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of tensor `name`, read from disk into memory of their own."""
        entry = self._entry(name)
        if isinstance(entry, ComputedTensor) or entry.transposed:
            return self.tensor(name)[first:last]
        rows = range(*slice(first, last).indices(entry.shape[0]))
        row_bytes = entry.bytes // entry.shape[0]
        return _read(entry, name, entry.offset + rows.start * row_bytes, (len(rows), *entry.shape[1:]))

    def main_dtype(self) -> torch.dtype:
        """The floating-point type that most of the bytes are stored in."""
        sizes: Counter[torch.dtype] = Counter()
        for entry in self._tensors.values():
            if entry.dtype.is_floating_point and entry.dtype.itemsize > 1:  # float8 holds codes
                sizes[entry.dtype] += entry.bytes
        if not sizes:
            raise ModelError(f"{self.folder}: holds no floating-point tensor")
        return sizes.most_common(1)[0][0]

    def _entry(self, name: str) -> StoredTensor | ComputedTensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise ModelError(f"{self.folder}: has no tensor {name!r}") from None


def _read(entry: StoredTensor, name: str, offset: int, shape: tuple[int, ...]) -> Tensor:
    """`shape` of the file from byte `offset` on. It is read and not mapped: pages of a map count as memory of this
    process once they are touched, and with them, in large pages, what lies around them."""
    tensor = torch.empty(shape, dtype=entry.dtype)
    as_bytes: Any = tensor.view(-1).view(torch.uint8).numpy()
    wanted = memoryview(as_bytes)
    try:
        with entry.path.open("rb", buffering=0) as file:
            file.seek(offset)
            while len(wanted):
                count = file.readinto(wanted)
                if not count:
                    raise ModelError(f"{entry.path}: ends inside of tensor {name!r}; download it again")
                wanted = wanted[count:]
    except OSError as error:
        raise ModelError(f"{entry.path}: tensor {name!r} cannot be read: {error.strerror}") from error
    return tensor


def open_checkpoint(folder: Path) -> Checkpoint:
    """The weights of the model in `folder`, checked but not read.

    Raises ModelError when the folder, config.json or a shard is missing or damaged, when the weights are pickles, when
    the model is not causal, or when the config wants code of its own to be run.
    """
    config = read_config(folder)
    shards = _shard_paths(folder)
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        header = read_header(shard)
        if twice := sorted(set(header) & set(tensors)):
            raise ModelError(f"{folder}: tensor {twice[0]!r} lies in two shards; download the model again")
        tensors.update(header)
    _check_index(folder, tensors)
    if not is_quantized(config):
        _refuse_codes(folder, tensors)
    return Checkpoint(folder, config, tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of `folder`, refused unless it describes a causal language model that transformers has code for."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json; {_other_kind(folder) or 'this is not a model folder'}")
    try:
        config: dict[str, Any] = read_json_object(folder / "config.json")
    except StoreError as error:
        raise ModelError(str(error)) from error
    _check_causal(folder, config)
    return config


def is_quantized(config: dict[str, Any]) -> bool:
    """Whether `config` says that the weights beside it are stored as codes and scales."""
    return any(config.get(key) is not None for key in KEYS_OF_STORAGE)


def is_of_unknown_base(folder: Path) -> bool:
    """Whether the model in `folder` was quantized by somebody who left no word of the model it was made from."""
    return is_quantized(read_config(folder)) or (folder / GGUF_NOTE).is_file()


def weights_digest(folder: Path) -> str:
    """SHA-256 over config.json and every safetensors shard of `folder`."""
    return folder_digest(folder, ["config.json", *(path.name for path in _shard_paths(folder))])


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over the tokenizer files and the chat template of `folder`."""
    return folder_digest(folder, tokenizer_files(folder))


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """Names of the files of `folder` that decide how text becomes tokens."""
    return tuple(name for name in _TOKENIZER_FILES if (folder / name).is_file())


def _check_causal(folder: Path, config: dict[str, Any]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MODELS

    model_type, architectures = config.get("model_type"), config.get("architectures") or []
    for key in KEYS_OF_STORAGE:
        if not isinstance(config.get(key), dict | None):
            raise ModelError(f"{folder}: config.json: {key} is no table of settings but {config[key]!r}")
    if not isinstance(model_type, str):
        raise ModelError(f"{folder}: config.json names no model_type; this is not a transformers model")
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise ModelError(f"{folder}: config.json: architectures is {architectures!r}; give a list of one class name")
    if "auto_map" in config and model_type not in MODELS:
        raise ModelError(
            f"{folder}: config.json asks for code of its own (auto_map), and transformers itself has none for "
            f"{model_type!r}; qtool never runs a model's code"
        )
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{folder}: an encoder-decoder model; qtool runs causal language models")
    known = {name for names in MODELS.values() for name in ((names,) if isinstance(names, str) else names)}
    if architectures and architectures[0] not in known and "auto_map" not in config:
        raise ModelError(f"{folder}: {architectures[0]} is not a causal language model that transformers knows")
    if model_type not in MODELS:
        raise ModelError(f"{folder}: model_type {model_type!r} has no causal language model in transformers")


def _shard_paths(folder: Path) -> list[Path]:
    single = folder / "model.safetensors"
    if (folder / INDEX_NAME).is_file():
        weight_map = _read_index(folder)
        paths = [folder / name for name in sorted(set(weight_map.values()))]
        for path in paths:
            if path.parent != folder or not path.is_file():
                raise ModelError(f"{path}: listed in {INDEX_NAME} but missing; download the model again")
        if single.is_file() and single not in paths:  # transformers reads the file, others the shards
            raise ModelError(
                f"{folder}: holds two sets of weights, model.safetensors and the {len(paths)} shards of {INDEX_NAME} "
                f"(first {paths[0].name}); remove the one that is not the model"
            )
        return paths
    if single.is_file():
        return [single]
    raise ModelError(_no_weights(folder))


def _no_weights(folder: Path) -> str:
    """What the folder without safetensors weights holds instead, and what to do."""
    for pattern in _PICKLES:
        if pickles := sorted(path.name for path in folder.glob(pattern)):
            return (
                f"{folder}: only has pickled weights ({pickles[0]}), which can run code when opened; "
                "convert them to safetensors first: load the folder with transformers and call save_pretrained"
            )
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        return f"{folder}: no model.safetensors and no {INDEX_NAME}, but {others[0]}; rename it or add the index"
    return f"{folder}: no model.safetensors and no {INDEX_NAME}; {_other_kind(folder) or 'download the model again'}"


def _other_kind(folder: Path) -> str:
    """What kind of model folder this is that qtool does not read, and what to do; empty where nothing tells."""
    if (folder / "adapter_config.json").is_file():
        return (
            "this is a LoRA adapter (adapter_config.json), not a model: merge it into its base with peft "
            "(merge_and_unload, save_pretrained) and give that folder"
        )
    if (folder / "model_index.json").is_file():
        return "this is a diffusers pipeline (model_index.json), not a causal language model"
    if gguf := sorted(path.name for path in folder.glob("*.gguf")):
        return f"this folder holds a GGUF file ({gguf[0]}); name the file itself"
    return ""


def _read_index(folder: Path) -> dict[str, str]:
    try:
        index = read_json_object(folder / INDEX_NAME)
    except StoreError as error:
        raise ModelError(str(error)) from error
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{folder / INDEX_NAME}: has no weight_map")
    return {str(name): str(shard) for name, shard in weight_map.items()}


def _refuse_codes(folder: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Whole numbers and 8-bit floats are codes: without a word on their scales they must not be taken for weights."""
    for name, tensor in sorted(tensors.items()):
        if len(tensor.shape) < 2 or not name.endswith(("weight", "_proj")):
            continue
        kind = str(tensor.dtype).removeprefix("torch.")
        if not tensor.dtype.is_floating_point or tensor.dtype.itemsize == 1:
            raise ModelError(
                f"{folder}: {name} is stored as {kind}: codes, and config.json has no quantization_config that says "
                "what they mean; restore it, or give the unquantized model"
            )
        if tensor.dtype is torch.float64:
            raise ModelError(f"{folder}: {name} is stored as {kind}; save the model in float32 or bfloat16 first")


def _check_index(folder: Path, tensors: dict[str, StoredTensor]) -> None:
    if not (folder / INDEX_NAME).is_file():
        return
    missing = sorted(set(_read_index(folder)) - set(tensors))
    if missing:
        raise ModelError(f"{folder}: {len(missing)} tensors of {INDEX_NAME} are in no shard, first {missing[0]!r}")
