"""The one list of what other people's code raises on odd input: transformers and its tokenizers are asked to build a
model from files that anyone may have written, and tell what they dislike by whatever exception lies nearest."""

import contextlib
from collections.abc import Iterator

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from qtool.errors import ModelError

FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    SafetensorError,
    StrictDataclassError,
)


@contextlib.contextmanager
def blamed_on(subject: str) -> Iterator[None]:
    """Turns whatever a library raises inside into a ModelError: `subject`, then the reason in one line."""
    try:
        yield
    except FOREIGN as error:
        raise ModelError(f"{subject}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What `error` says, in one line that names its kind where the text alone would say nothing (a KeyError's)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    if isinstance(error, StrictDataclassError) and len(lines) > 1:
        return " ".join(lines[:2])
    if not lines or isinstance(error, LookupError):
        return f"{kind} {lines[0] if lines else ''}".strip()
    return lines[0]
