"""The JSON value that a text gives, found among prose by the keys that are wanted."""

import json
import re
from collections.abc import Collection, Iterator

_FENCE = re.compile(r"(?ms)^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)")
_EXAMPLE = re.compile(
    r"\b(?:example|e\.g\.|for instance|format|schema|template|structure|like this|such as|input)\b[^{}\[\]\n]*$",
    re.IGNORECASE,
)
_MARKED = re.compile(r"\b(?:answer|result|output|final|corrected)\b[^{}\[\]]*$", re.IGNORECASE)


def json_value(text: str, *, keys: Collection[str] = (), array: bool = False) -> str | None:
    """The text of the object (or array, where `array`) in `text` that has most of `keys`; None where there is none.

    Between equals, one that is marked as the answer wins, then one that no example introduces, then the last.
    """
    best: tuple[tuple[int, int, int, int, int], str] | None = None
    for start, end, value in _outermost(_values(text), keys):
        overlap = _overlap(value, keys)
        before = text[max(0, start - 80) : start]
        rank = (
            overlap,
            int(isinstance(value, list) == array),
            int(_MARKED.search(before) is not None),
            int(_EXAMPLE.search(before) is None),
            start,
        )
        if (keys and not overlap and isinstance(value, list) != array) or (best is not None and best[0] >= rank):
            continue
        best = (rank, text[start:end])
    return None if best is None else best[1]


def loads(text: str) -> object:
    """The value of strict JSON. Raises ValueError for anything else: NaN, numbers too long to read, endless nesting."""
    try:
        return json.loads(text, parse_constant=_refused)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _outermost(values: list[tuple[int, int, object]], keys: Collection[str]) -> Iterator[tuple[int, int, object]]:
    """Values that stand in no other; those inside of one that has none of `keys` too: a wrapper, or a list."""
    covered = 0
    for start, end, value in values:
        if start < covered:
            continue
        yield start, end, value
        if not keys or _overlap(value, keys):
            covered = end


def _values(text: str) -> list[tuple[int, int, object]]:
    """(start, end, value) of every object and array in `text`, in the order in which they begin."""
    decoder = json.JSONDecoder(parse_constant=_refused)
    found = []
    for opening in re.finditer(r"\{|\[(?!\[{30})", text):  # thirty brackets in a row are a loop
        start = opening.start()
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        found.append((start, end, value))
    return found


def _overlap(value: object, keys: Collection[str]) -> int:
    if not isinstance(value, dict):
        return 0
    folded = {str(key).casefold() for key in value}
    return sum(key.casefold() in folded for key in keys)


def _refused(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
