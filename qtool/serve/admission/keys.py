"""API keys: who may come in, and how much each may ask for. Kept as digests; compared in constant time."""

import hashlib
import hmac
import logging
import math
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtool.errors import UsageError
from qtool.serve.api.refusal import Refused

_log = logging.getLogger("qtool.serve")
_CHECK_SECONDS = 1.0
_FIELDS = {"sha256", "class", "concurrency", "requests_per_minute", "tokens_per_minute", "admin"}


@dataclass(slots=True, eq=False)
class Bucket:
    """A budget per minute that fills steadily; it may go below zero, and then nothing is given until it is paid."""

    per_minute: float
    clock: Callable[[], float] = time.monotonic
    level: float = field(init=False)
    filled_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.per_minute
        self.filled_s = self.clock()

    def wait_seconds(self) -> float:
        """Seconds until something may be taken; 0 at once."""
        now = self.clock()
        self.level = min(self.per_minute, self.level + (now - self.filled_s) * self.per_minute / 60.0)
        self.filled_s = now
        return max(0.0, (1.0 - self.level) * 60.0 / self.per_minute) if self.level < 1.0 else 0.0

    def take(self, amount: float) -> None:
        """Takes what was used."""
        self.level -= amount


@dataclass(slots=True, eq=False)
class Key:
    """One key: its name in the file, its class in metrics, and what it may use."""

    name: str
    digest: bytes
    key_class: str = "default"
    concurrency: int | None = None
    requests: Bucket | None = None
    tokens: Bucket | None = None
    admin: bool = False
    running: int = 0

    def enter(self) -> None:
        """Counts a request in. Raises Refused (429) where a limit of this key is reached."""
        if self.concurrency is not None and self.running >= self.concurrency:
            raise _limited(f"this key may have {self.concurrency} requests at once", 1.0)
        for bucket, what in ((self.requests, "requests"), (self.tokens, "tokens")):
            if bucket is not None and (wait := bucket.wait_seconds()) > 0:
                raise _limited(f"this key may use {bucket.per_minute:g} {what} per minute", wait)
        if self.requests is not None:
            self.requests.take(1)
        self.running += 1

    def after(self, before: "Key | None") -> "Key":
        """This key, or the one it was before where nothing but counts would differ."""
        same = before is not None and self._terms() == before._terms()
        return before if before is not None and same else self

    def _terms(self) -> tuple[object, ...]:
        budgets = (bucket.per_minute if bucket else None for bucket in (self.requests, self.tokens))
        return (self.name, self.digest, self.key_class, self.concurrency, *budgets, self.admin)

    def leave(self, tokens: int) -> None:
        """Counts a request out, with the tokens that it used."""
        self.running -= 1
        if self.tokens is not None:
            self.tokens.take(tokens)


class Keys:
    """All keys of a server. Without a file everybody is let in, under one name."""

    def __init__(self, keys: tuple[Key, ...] = (), path: Path | None = None) -> None:
        self._keys = keys
        self._path = path
        self._checked_s = time.monotonic()
        self._mark = _mark(path)

    def refresh(self) -> None:
        """Reads the file again when it has changed, looked for at most once per second. A file that cannot be read
        leaves the keys as they are. Keys that stay the same keep their budgets and what they have running."""
        now = time.monotonic()
        if self._path is None or now - self._checked_s < _CHECK_SECONDS:
            return
        self._checked_s = now
        mark = _mark(self._path)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            fresh = read_keys(self._path)._keys
        except UsageError as error:
            _log.error("the old keys stay: %s", error)
            return
        known = {key.digest: key for key in self._keys}
        self._keys = tuple(key.after(known.get(key.digest)) for key in fresh)
        _log.info("%d keys read again from %s", len(self._keys), self._path)

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self._keys)

    def find(self, authorization: str | None) -> Key | None:
        """The key of an Authorization header; None where no key is required. Raises Refused (401).

        Every key is compared, and each in constant time: how long a refusal takes tells nothing about the keys.
        """
        if not self._keys:
            return None
        scheme, _, secret = (authorization or "").partition(" ")
        digest = hashlib.sha256(secret.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None or scheme.lower() != "bearer":
            raise Refused(401, "the API key is missing or unknown; send the header: Authorization: Bearer KEY")
        return found


def read_keys(path: Path) -> Keys:
    """Keys of a TOML file: a table per key with `sha256` (of the secret) and limits. Raises UsageError."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a file of keys: {error}") from error
    keys = tuple(_key(path, name, table) for name, table in document.items())
    if not keys:
        raise UsageError(f"{path}: holds no key; each is a table such as [team] with sha256 = '...'")
    if len({key.digest for key in keys}) < len(keys):
        raise UsageError(f"{path}: two keys have the same sha256")
    return Keys(keys, path)


def _mark(path: Path | None) -> tuple[int, int] | None:
    """What changes when the file does."""
    try:
        return (path.stat().st_mtime_ns, path.stat().st_size) if path is not None else None
    except OSError:
        return None


def _key(path: Path, name: str, table: Any) -> Key:
    if not isinstance(table, dict) or not isinstance(table.get("sha256"), str):
        raise UsageError(f"{path}: [{name}] needs sha256 = 'HEX' (make it with: printf %s KEY | sha256sum)")
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        raise UsageError(f"{path}: [{name}] has the unknown field {unknown[0]!r}; known: {', '.join(sorted(_FIELDS))}")
    try:
        digest = bytes.fromhex(table["sha256"])
    except ValueError as error:
        raise UsageError(f"{path}: [{name}] sha256 is not hexadecimal") from error
    if len(digest) != hashlib.sha256().digest_size:
        raise UsageError(f"{path}: [{name}] sha256 must have 64 hexadecimal digits")
    concurrency = _number(path, name, table, "concurrency")
    requests = _number(path, name, table, "requests_per_minute")
    tokens = _number(path, name, table, "tokens_per_minute")
    return Key(
        name=name,
        digest=digest,
        key_class=str(table.get("class", "default")),
        concurrency=None if concurrency is None else int(concurrency),
        requests=None if requests is None else Bucket(requests),
        tokens=None if tokens is None else Bucket(tokens),
        admin=table.get("admin") is True,
    )


def _number(path: Path, name: str, table: dict[str, Any], field_name: str) -> float | None:
    value = table.get(field_name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 1:
        raise UsageError(f"{path}: [{name}] {field_name} must be a number of at least 1")
    return float(value)


def _limited(message: str, wait_seconds: float) -> Refused:
    retry_after = min(max(math.ceil(wait_seconds), 1), 60)
    return Refused(429, message, outcome="shed", retry_after=retry_after)
