"""A variant as the file of another program, written aside, read back, and only then given its name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qtool import catalog
from qtool.errors import StoreError
from qtool.models.tokenizer import load_tokenizer
from qtool.progress import Progress
from qtool.store.run_directory import explained, locked


@dataclass(frozen=True, slots=True)
class Conversion:
    """A file written from a variant: how many matrices of which type, and what was proven of it.

    `compared` matrices were read back and hold the same numbers; `rounded` scalars do not, since embedding and head
    were asked for in another type.
    """

    source: str
    file: str
    bytes: int
    kinds: tuple[tuple[str, int], ...]
    compared: int
    rounded: int


def convert(
    folder: Path,
    output: Path,
    *,
    progress: Progress,
    embedding: Literal["keep", "f16", "q8_0"] = "keep",
    pre: str | None = None,
    replace: bool = False,
) -> Conversion:
    """Writes the model or variant in `folder` as the GGUF file `output`.

    Codes and scales are written as they are and read back. Raises ModelError for a model GGUF has no place for,
    QuantizationError where a weight would change, StoreError where `output` cannot be written; then it does not exist.
    """
    catalog.require("gguf", needed_by="qtool convert", extra="gguf")
    from qtool.formats.gguf.write import open_source, read_back, write_gguf

    if output.is_dir():
        raise StoreError(f"{output}: is a folder; name the file to write, such as {output / (folder.name + '.gguf')}")
    if output.exists() and not replace:
        raise StoreError(f"{output}: already exists; choose another name or give --replace")
    tokenizer = load_tokenizer(folder)
    source = open_source(folder, embedding)
    partial = output.with_name(output.name + ".partial")
    matrices = sum(len(layers) for _, layers in source.matrices())
    with explained(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.with_name(f".{output.name}.lock"), holds=str(output)), explained(output):
        try:
            with progress.track(f"writing {output.name}", matrices, "matrices") as advance:
                write_gguf(source, partial, tokenizer, name=folder.resolve().name, pre=pre, advance=advance)
            with progress.track("reading it back", matrices, "matrices") as advance:
                written = read_back(source, partial, advance=advance)
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    return Conversion(
        source=str(folder),
        file=str(output),
        bytes=written.bytes,
        kinds=written.kinds,
        compared=written.compared,
        rounded=written.rounded,
    )
