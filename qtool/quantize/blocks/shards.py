"""The weights of a finished variant in as few files as there should be: one, or shards of up to 5 GB with an index.

While a variant is made, each part lies in a file of its own, so that a killed run can go on. The files are then joined
by copying bytes; a part's file is removed as soon as all of it lies in finished shards, so that the disk never holds
more than one shard twice, and a run that is killed here goes on as well.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qtool.models.checkpoint import INDEX_NAME
from qtool.store.run_directory import explained, write_text

_LARGEST = 5_000_000_000
_CHUNK = 1 << 24
_SINGLE = "model.safetensors"


class _Piece(NamedTuple):
    """One tensor in the file of its part: its entry of the header, and where its bytes begin."""

    name: str
    file: Path
    entry: dict[str, Any]
    start: int

    @property
    def bytes(self) -> int:
        first, last = self.entry["data_offsets"]
        return int(last) - int(first)


def join_parts(folder: Path, files: Sequence[Path], sizes: Sequence[dict[str, int]]) -> None:
    """Writes the tensors of `files` as the shards of `folder`. `sizes` says which tensors of how many bytes each file
    holds, or held before a killed run had joined it."""
    shards = _planned(sizes)
    names = [_SINGLE] if len(shards) == 1 else _numbered(len(shards))
    home = {name: file for file, held in zip(files, sizes, strict=True) for name in held}
    with explained(folder):
        for number, (shard, members) in enumerate(zip(names, shards, strict=True)):
            if not (folder / shard).is_file():
                _write_shard(folder / shard, list(_pieces(members, home)))
            later = {home[name] for others in shards[number + 1 :] for name in others}
            for file in {home[name] for name in members} - later:
                file.unlink(missing_ok=True)
    if len(shards) > 1:
        weight_map = {name: shard for shard, members in zip(names, shards, strict=True) for name in members}
        total = sum(size for held in sizes for size in held.values())
        document = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_text(folder / INDEX_NAME, json.dumps(document, indent=2, sort_keys=True) + "\n")


def _planned(sizes: Sequence[dict[str, int]]) -> list[list[str]]:
    """Names of tensors by shard, in the order of the parts."""
    shards: list[list[str]] = [[]]
    filled = 0
    for held in sizes:
        for name, size in held.items():
            if shards[-1] and filled + size > _LARGEST:
                shards.append([])
                filled = 0
            shards[-1].append(name)
            filled += size
    return shards


def _numbered(count: int) -> list[str]:
    return [f"model-{number + 1:05d}-of-{count:05d}.safetensors" for number in range(count)]


def _pieces(names: Sequence[str], home: dict[str, Path]) -> Iterator[_Piece]:
    headers: dict[Path, tuple[dict[str, Any], int]] = {}
    for name in names:
        file = home[name]
        if file not in headers:
            headers[file] = _header(file)
        entries, start = headers[file]
        yield _Piece(name, file, entries[name], start)


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The entries of a safetensors file that qtool wrote, and where its tensors begin."""
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return json.loads(stream.read(length)), 8 + length


def _write_shard(path: Path, pieces: list[_Piece]) -> None:
    # the widest numbers first, as safetensors writes them: each tensor then begins where its type may begin
    pieces.sort(key=lambda piece: (-piece.bytes // max(_count(piece), 1), piece.name))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for piece in pieces:
        entries[piece.name] = {**piece.entry, "data_offsets": [offset, offset + piece.bytes]}
        offset += piece.bytes
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        for piece in pieces:
            _copy(piece, stream)
    partial.replace(path)


def _count(piece: _Piece) -> int:
    count = 1
    for size in piece.entry["shape"]:
        count *= int(size)
    return count


def _copy(piece: _Piece, stream: Any) -> None:
    with piece.file.open("rb") as source:
        source.seek(piece.start + int(piece.entry["data_offsets"][0]))
        left = piece.bytes
        while left:
            data = source.read(min(left, _CHUNK))
            if not data:
                raise OSError(f"{piece.file}: ends before its tensor {piece.name}")
            stream.write(data)
            left -= len(data)
