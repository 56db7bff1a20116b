"""What is already on disk of a variant in the making: one file and one record for each finished part.

Part 0 is what lies outside the blocks, part n + 1 is block n. A killed run is continued from its finished parts.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qtool.quantize.blocks.hidden_states import Samples
from qtool.quantize.blocks.shards import join_parts
from qtool.records.variant import HeldOutChange, LedgerRow
from qtool.store.codec import read_json
from qtool.store.run_directory import explained, write_record

_STATE = ".state"
_OUTCOME = "outcome.json"


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One finished part: its layers' rows, the SHA-256 of each tensor as it was in memory, and of each quantized
    weight as numbers; the bytes of each tensor; and the layers whose inputs are dynamic although static was asked."""

    rows: tuple[LedgerRow, ...]
    digests: dict[str, str]
    numbers: dict[str, str]
    sizes: dict[str, int]
    dynamic: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(self.sizes.values())


@dataclass(frozen=True, slots=True)
class Origin:
    """What a variant in the making is made from, and by how many threads: another number may add in another order."""

    signature: str
    threads: int


class Parts:
    """The parts of the variant in `folder`; `signature` says what they were made from, and others are thrown away.
    `threads` is the number that makes them: what a killed run used, where there is one to be continued."""

    def __init__(self, folder: Path, *, count: int, signature: str, threads: int = 1) -> None:
        self.folder = folder
        self.count = count
        self._state = folder / _STATE
        held = self._state / "origin.json"
        with explained(folder):
            origin = read_json(Origin, held) if held.is_file() else None
            if origin is None or origin.signature != signature:
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                self._state.mkdir()
                origin = Origin(signature, threads)
                write_record(held, origin)
        self.threads = origin.threads

    def read(self, part: int) -> PartRecord | None:
        """The record of `part` if it was finished."""
        path = self._state / f"part-{part:05d}.json"
        return read_json(PartRecord, path) if path.is_file() else None

    def write(
        self,
        part: int,
        tensors: Mapping[str, Tensor],
        rows: tuple[LedgerRow, ...],
        numbers: Mapping[str, str],
        *,
        dynamic: tuple[str, ...] = (),
    ) -> PartRecord:
        """Writes the tensors of `part` and then its record, which makes it finished; hidden states that only an
        unfinished `part` would need are dropped then, and not before."""
        digests = {tensor: tensor_digest(value) for tensor, value in tensors.items()}
        write_tensors(self._file(part), tensors)
        sizes = {tensor: value.nbytes for tensor, value in tensors.items()}
        record = PartRecord(rows, digests, dict(numbers), sizes, dynamic)
        write_record(self._state / f"part-{part:05d}.json", record)
        for older in self._state.glob("samples-*.safetensors"):
            if older < self._samples(part):
                older.unlink()
        return record

    def keep_samples(self, part: int, samples: Samples) -> None:
        """Saves the hidden states that leave `part`."""
        states = (*samples.hidden, *samples.base_held_out, *(samples.base or ()))
        write_tensors(self._samples(part), {f"{index:06d}": state for index, state in enumerate(states)})

    def read_samples(self, part: int) -> list[Tensor] | None:
        """The hidden states that left `part`, or None where they were not kept."""
        from safetensors.torch import load_file

        if not self._samples(part).is_file():
            return None
        saved = load_file(self._samples(part))
        return [saved[name] for name in sorted(saved)]

    def write_outcome(self, outcome: HeldOutChange) -> None:
        """Keeps what the finished parts do to held-out text."""
        write_record(self._state / _OUTCOME, outcome)

    def read_outcome(self) -> HeldOutChange | None:
        """What `write_outcome` kept."""
        path = self._state / _OUTCOME
        return read_json(HeldOutChange, path) if path.is_file() else None

    def join(self, records: Sequence[PartRecord]) -> None:
        """Turns the files of all parts into the shards of the variant."""
        join_parts(self.folder, [self._file(part) for part in range(len(records))], [each.sizes for each in records])

    def finish(self) -> None:
        """Removes all that only a resumed run needs."""
        with explained(self.folder):
            shutil.rmtree(self._state)

    def _file(self, part: int) -> Path:
        return self._state / f"part-{part:05d}.safetensors"

    def _samples(self, part: int) -> Path:
        return self._state / f"samples-{part:05d}.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Replaces `path` by a safetensors file, atomically; a full disk is an OSError like any other."""
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"format": "pt"})
    partial = path.with_name(path.name + ".partial")
    with explained(path):
        partial.write_bytes(data)
        partial.replace(path)


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of the bytes of `tensor`, with its type and shape."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest.update(flat.numpy().data)
    return digest.hexdigest()
