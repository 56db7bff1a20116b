"""One request in a hundred, kept as a JSON line: chosen by a hash of its id, redacted, bounded, never waited for."""

import hashlib
import json
import logging
import queue
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from qtool.errors import StoreError

_log = logging.getLogger("qtool.serve")
_PARTS = 10_000
_WAITING = 256
_REDACTED = (
    (re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"), "[email]"),
    (re.compile(r"\b(?:sk|pk|ghp|xox[bap])[-_][A-Za-z0-9_-]{12,}"), "[secret]"),
    (re.compile(r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+"), "[secret]"),
    (re.compile(r"(?<!\w)\+?\d[\d ()/-]{7,}\d(?!\w)"), "[number]"),
)


def redact(text: str) -> str:
    """`text` without addresses, long numbers and things that look like keys."""
    for pattern, word in _REDACTED:
        text = pattern.sub(word, text)
    return text


class Samples:
    """Lines go to `folder`/samples.jsonl in a thread of its own; full files are kept as samples.1.jsonl and so on.

    What cannot be written (a full queue, a full disk) is counted in `lost`, and no request waits for it.
    """

    def __init__(self, folder: Path, *, rate: float, most_bytes: int = 100_000_000, files: int = 4) -> None:
        self.rate = rate
        self.lost = 0
        self.written = 0
        self._folder = folder
        self._most_bytes = most_bytes // files
        self._files = files
        self._lines: queue.Queue[dict[str, object] | None] = queue.Queue(_WAITING)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "samples.jsonl").open("a").close()
        except OSError as error:
            raise StoreError(f"{folder}: samples cannot be written there: {error.strerror}") from error
        self._thread = threading.Thread(target=self._write, name="qtool-samples", daemon=True)
        self._thread.start()

    def chooses(self, request_id: str) -> bool:
        """Whether the request of that id is kept: the same for every server and every try."""
        digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % _PARTS < self.rate * _PARTS

    def keep(self, line: Mapping[str, object]) -> None:
        """Hands a line to the writer; lost where it is too far behind."""
        try:
            self._lines.put_nowait({"time": time.time(), **line})
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Writes what waits and ends the thread."""
        self._lines.put(None)
        self._thread.join(2.0)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                with (self._folder / "samples.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps(_redacted(line), ensure_ascii=False) + "\n")
                    full = file.tell() > self._most_bytes
                self.written += 1
                if full:
                    self._rotate()
            except OSError as error:
                self.lost += 1
                _log.warning("samples cannot be written: %s", error.strerror)

    def _rotate(self) -> None:
        for number in range(self._files - 1, 0, -1):
            older = self._folder / f"samples.{number}.jsonl"
            newer = self._folder / ("samples.jsonl" if number == 1 else f"samples.{number - 1}.jsonl")
            if newer.exists():
                newer.replace(older)


def _redacted(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(part) for part in value]
    return value
