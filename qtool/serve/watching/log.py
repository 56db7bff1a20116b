"""Log lines as JSON: one object per line, with time and level; nothing of what clients say, no secrets."""

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import TextIO

_REPEAT_SECONDS = 1.0


class JsonLines(logging.Formatter):
    """`extra={"fields": {...}}` of a record becomes part of its object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": moment, "level": record.levelname.lower(), "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class NotTooOften(logging.Filter):
    """Lets a message pass once per second and counts the others: a fault in a loop must not fill a disk."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a repeated fault. Lines of requests always pass: there is one for each."""
        if record.levelno < logging.WARNING:
            return True
        now = time.monotonic()
        kind = str(record.msg)
        if now - self._last.get(kind, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            self._held[kind] = self._held.get(kind, 0) + 1
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[kind] = now
        held = self._held.pop(kind, 0)
        if held:
            record.fields = {**getattr(record, "fields", {}), "repeated": held}
        return True


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what is stderr at that moment: a program that runs the server may exchange it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """The current stderr."""
        return sys.stderr


def configure() -> None:
    """All logging of this process goes to stderr as JSON lines."""
    handler = _Stderr()
    handler.setFormatter(JsonLines())
    handler.addFilter(NotTooOften())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "asyncio", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
