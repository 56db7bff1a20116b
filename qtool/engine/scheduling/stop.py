"""Stop strings: found in the decoded output, wherever token and character borders fall."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Decode = Callable[[Sequence[int]], str]


class StopWatch:
    """Watches one request's output for its stop strings."""

    def __init__(self, stops: Sequence[str], decode: Decode) -> None:
        self._stops = tuple(stops)
        self._decode = decode
        # a token gives at least one byte, so this many of them always cover the longest stop; a few more complete the
        # character that the window begins in
        self._window = max(len(text.encode("utf-8", "surrogatepass")) for text in stops) + 8

    def reached(self, ids: Sequence[int]) -> bool:
        """Whether the output `ids` now contains a stop string that the newest token completed."""
        text = self._decode(ids[-self._window :])
        return any(stop in text for stop in self._stops)


def cut_at_stop(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first occurrence of any of `stops`."""
    found = [position for stop in stops if (position := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def folder_decode(folder: Path) -> Decode | None:
    """What turns ids into text with the tokenizer of `folder`, loaded at its first use; None where there is none."""
    from qtool.models.checkpoint import tokenizer_files

    if not tokenizer_files(folder):
        return None
    loaded: list[Any] = []

    def decode(ids: Sequence[int]) -> str:
        if not loaded:
            from qtool.models.tokenizer import load_tokenizer

            loaded.append(load_tokenizer(folder))
        return str(loaded[0].decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return decode
