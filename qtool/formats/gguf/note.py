"""What a model folder that was made of a GGUF file says of that file."""

from dataclasses import dataclass
from pathlib import Path

from qtool.store.codec import read_json

GGUF_NOTE = "gguf.json"
KEPT_AS_CODES = ("Q4_0", "Q8_0")  # what a product of ours multiplies as it is
PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class GgufNote:
    """`types` counts the file's matrices by block type; `bytes` is the size of all its parts; `kept_as_codes` layers
    were not turned into numbers."""

    file: str
    bytes: int
    types: tuple[tuple[str, int], ...]
    kept_as_codes: int


def gguf_note(folder: Path) -> GgufNote | None:
    """The note of `folder`, None where it was not made of a GGUF file."""
    return read_json(GgufNote, folder / GGUF_NOTE) if (folder / GGUF_NOTE).is_file() else None
