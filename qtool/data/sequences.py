"""Token sequences of a calibration set: mixed by weight, packed or one row each, deduplicated, split and counted."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtool.data.files import Row
from qtool.data.sampling import sample_rows
from qtool.data.sets import SetSpec, SourceSpec
from qtool.data.texts import asks_as_chat, source_rows, text_of
from qtool.errors import DataError
from qtool.models.tokenizer import encode
from qtool.records.calibration import SourceCount

MIN_TOKENS = 8  # a shorter row is mostly its first token, whose activations are unlike all others
HELD_OUT_EVERY = 5  # each fifth row never makes a range; it checks them
MIN_CHECKING = 16  # rows of a source that only checks: with 3 to 8, half of what is not covered goes unnoticed
_CHARACTERS_A_TOKEN = 8  # of text kept to choose from: twice what tokenizers make of prose


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One row of the calibration: its tag, whether it is held out, and where its first source row stands.

    Token ids are kept in four bytes each: a set may hold millions, and as Python numbers they fill the memory.
    """

    tokens: "array[int]"
    tag: str
    held_out: bool
    where: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """The sequences of a set, those of a tag together, and what became of its rows."""

    sequences: tuple[TokenSequence, ...]
    sources: tuple[SourceCount, ...]
    digest: str
    packed: bool
    chat: bool


def draw_sequences(
    spec: SetSpec, tokenizer: Any, *, sequences: int, tokens: int, seed: int, chat: bool | None = None
) -> Drawn:
    """`sequences` sequences of at most `tokens` tokens to calibrate on, and a quarter more that are held out.

    The same arguments give the same sequences. A source that is too small gives what it has. Raises DataError when a
    row is malformed, with its line, or the whole set yields no token.
    """
    found: list[TokenSequence] = []
    counts: list[SourceCount] = []
    seen: set[bytes] = set()
    for source, share in zip(spec.sources, shares(spec.sources, sequences), strict=True):
        held_out = _held_out(share, -(-sequences // len(spec.sources)))
        builder = _Builder(source, tokens, {False: share, True: held_out}, seen)
        for row in shuffled_rows(source, share + held_out, tokens, seed):
            if builder.full:
                break
            text = text_of(row, source, tokenizer, chat=chat)
            builder.add(row, encode(tokenizer, text) if text.strip() else ())
        builder.finish()
        found += builder.made
        counts.append(builder.count())
    if not any(not sequence.held_out for sequence in found):
        raise DataError(f"calibration set {spec.name!r} yields no token: {_what_became(counts)}")
    return Drawn(
        tuple(found),
        tuple(counts),
        digest_of(found),
        packed=any(source.joins_rows for source in spec.sources),
        chat=any(asks_as_chat(source, tokenizer, chat=chat) for source in spec.sources),
    )


def shares(sources: Sequence[SourceSpec], sequences: int) -> tuple[int, ...]:
    """How many of `sequences` each source gives, by weight, rounded by largest remainder; at least one, or 0 for 0."""
    total = sum(source.weight for source in sources)
    exact = [sequences * source.weight / total for source in sources]
    given = [max(1, int(value)) if value > 0 else 0 for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: exact[index] - int(exact[index]), reverse=True)
    for index in by_remainder[: max(0, sequences - sum(given))]:
        given[index] += 1
    return tuple(given)


def shuffled_rows(source: SourceSpec, sequences: int, tokens: int, seed: int) -> Iterable[Row]:
    """Rows of `source` in random order: all of a generator or hub stream, a large enough sample of a file."""
    rows = source_rows(source, seed=seed)
    if source.data is None:
        return rows
    if not Path(source.data).exists():
        raise DataError(f"{source.data}: no such file (source {source.tag!r})")
    characters = _CHARACTERS_A_TOKEN * tokens * sequences
    return sample_rows(rows, seed=seed, at_least=2 * sequences, characters=characters).rows


def digest_of(sequences: Iterable[TokenSequence]) -> str:
    """SHA-256 over token ids, tags and split of the sequences really used."""
    digest = hashlib.sha256()
    for sequence in sequences:
        digest.update(f"{sequence.tag}|{sequence.held_out}|{','.join(map(str, sequence.tokens))}\n".encode())
    return digest.hexdigest()


@dataclass(slots=True)
class _Builder:
    """Turns the rows of one source into sequences, calibration and held-out rows apart."""

    source: SourceSpec
    tokens: int
    wanted: dict[bool, int]
    seen: set[bytes]
    made: list[TokenSequence] = field(default_factory=list)
    read: int = 0
    used: int = 0
    empty: int = 0
    short: int = 0
    duplicate: int = 0
    cut: int = 0
    _made: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    _open: dict[bool, list[int]] = field(default_factory=lambda: {False: [], True: []})
    _where: dict[bool, str] = field(default_factory=lambda: {False: "", True: ""})

    @property
    def full(self) -> bool:
        """Whether both parts have all their sequences."""
        return not any(map(self._wants, (False, True)))

    def add(self, row: Row, tokens: Sequence[int]) -> None:
        """Takes in one row, or counts why not."""
        self.read += 1
        key = hashlib.blake2b(",".join(map(str, tokens)).encode(), digest_size=16).digest()
        if not tokens:
            self.empty += 1
        elif not self.source.joins_rows and len(tokens) < MIN_TOKENS:
            self.short += 1
        elif key in self.seen:
            self.duplicate += 1
        else:
            self.seen.add(key)
            held_out = self.used % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            if not self._wants(held_out):
                held_out = not held_out
            self.used += 1
            self._take(row, tokens, held_out)

    def finish(self) -> None:
        """Makes a last, shorter sequence of what is left over, where one is still wanted."""
        for held_out, left in self._open.items():
            if self._wants(held_out) and len(left) >= MIN_TOKENS:
                self._make(left, held_out)

    def count(self) -> SourceCount:
        """What became of the rows."""
        return SourceCount(
            self.source.tag, self.read, self.used, self.empty, self.short, self.duplicate, cut_to_length=self.cut
        )

    def _wants(self, held_out: bool) -> bool:
        return self._made[held_out] < self.wanted[held_out]

    def _take(self, row: Row, tokens: Sequence[int], held_out: bool) -> None:
        if not self._open[held_out]:
            self._where[held_out] = row.where
        if not self.source.joins_rows:
            self.cut += len(tokens) > self.tokens
            self._make(tokens[: self.tokens], held_out)
            return
        pending = self._open[held_out]
        pending.extend(tokens)
        while len(pending) >= self.tokens and self._wants(held_out):
            self._make(pending[: self.tokens], held_out)
            del pending[: self.tokens]
            self._where[held_out] = row.where
        if not self._wants(held_out):
            self.cut += bool(pending)
            pending.clear()

    def _make(self, tokens: Sequence[int], held_out: bool) -> None:
        self.made.append(TokenSequence(array("i", tokens), self.source.tag, held_out, self._where[held_out]))
        self._made[held_out] += 1


def _held_out(share: int, average: int) -> int:
    """Held-out sequences of a source: a quarter of what it gives; of one that only checks, of what others give."""
    return -(-share // (HELD_OUT_EVERY - 1)) if share else max(MIN_CHECKING, -(-average // (HELD_OUT_EVERY - 1)))


def _what_became(counts: Sequence[SourceCount]) -> str:
    return "; ".join(
        f"{count.tag}: {count.read} rows read, {count.dropped_empty} empty, "
        f"{count.dropped_short} under {MIN_TOKENS} tokens, {count.dropped_duplicate} duplicates"
        for count in counts
    )
