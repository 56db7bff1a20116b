"""What a safetensors file says it holds, read from its header alone."""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qtool.errors import ModelError

_MAX_HEADER_BYTES = 100 << 20  # the format's own limit

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Shape and type of one tensor of a file, the file, and the place of its first byte in it; `transposed` says that a
    matrix of this shape lies there column by column."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: int
    path: Path
    offset: int
    transposed: bool = False


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of `path` by name. Raises ModelError when the file is cut short, too long or no safetensors."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
                raise ModelError(f"{path}: not a safetensors file, or cut short ({size} bytes); download it again")
            document = json.loads(stream.read(length))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers or depths beyond any model's
        raise ModelError(f"{path}: the safetensors header is damaged; download it again") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: the safetensors header is damaged; download it again")
    document.pop("__metadata__", None)
    tensors = {name: _entry(path, name, entry, 8 + length) for name, entry in document.items()}
    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].bytes)):
        if tensor.offset != end:
            raise ModelError(f"{path}: the header puts tensor {name!r} where no tensor begins; download it again")
        end += tensor.bytes
    if size != end:
        raise ModelError(f"{path}: {size} bytes where its header asks for {end}; download it again")
    return tensors


def tensor_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each tensor of the folder's safetensors files, with its type and shape; shards make no difference."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            for name, tensor in read_header(path).items():
                stream.seek(tensor.offset)
                content = hashlib.sha256(f"{tensor.dtype} {tensor.shape} ".encode())
                content.update(stream.read(tensor.bytes))
                found[name] = content.hexdigest()
    return found


def _entry(path: Path, name: str, entry: dict[str, Any], data: int) -> StoredTensor:
    try:
        start, end = (_whole(offset) for offset in entry["data_offsets"])
        shape = tuple(_whole(length) for length in entry["shape"])
        dtype = DTYPES[str(entry["dtype"])]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: tensor {name!r} has a header qtool cannot read: {entry}") from error
    if min(shape, default=0) < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise ModelError(f"{path}: tensor {name!r} has {end - start} bytes, which is not its shape {shape} in {dtype}")
    return StoredTensor(shape=shape, dtype=dtype, bytes=end - start, path=path, offset=data + start)


def _whole(number: Any) -> int:
    """`number` where it is a whole one: readers of the format refuse 64.0 and "64"."""
    if type(number) is not int:
        raise TypeError(number)
    return number
