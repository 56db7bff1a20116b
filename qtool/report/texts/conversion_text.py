"""What `qtool convert` prints of the file it wrote."""

from collections.abc import Sequence

from qtool.report.texts.numbers import bytes_text


def conversion_text(file: str, kinds: Sequence[tuple[str, int]], compared: int, rounded: int, total: int) -> str:
    """Types of the matrices, what was compared, and the command that serves the file."""
    types = ", ".join(f"{count} {kind}" for kind, count in kinds)
    if rounded:
        proof = f"{compared} matrices read back; {rounded:,} numbers of embedding and head rounded as asked, no other"
    else:
        proof = f"{compared} matrices read back: no weight changed"
    return "\n".join([f"{file}: {bytes_text(total)}, {types}", proof, "", f"llama-server -m {file}"])
