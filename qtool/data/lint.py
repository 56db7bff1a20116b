"""What is wrong with a calibration set, row by row, before any model is run on it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

from qtool.data.files import Row
from qtool.data.overlap import TaskIndex
from qtool.data.sequences import MIN_TOKENS
from qtool.data.sets import SetSpec, SourceSpec
from qtool.data.texts import source_rows, text_of
from qtool.errors import DataError
from qtool.models.tokenizer import encode, uses_bos, wants_bos

MOST_ROWS = 100_000  # read of each file or hub set
MOST_GENERATED = 500
ROWS_SHOWN = 20

Severity = Literal["error", "warning"]
_KINDS: dict[str, tuple[Severity, str]] = {
    "unreadable": ("error", "cannot be read; repair or remove them"),
    "template_refused": ("error", "the model's chat template refuses the turns; check roles and their order"),
    "missing_template": ("error", "chat turns, but the model has no chat template; use plain text"),
    "contaminated": ("error", "repeat items of an evaluation task; scores on it would be worthless"),
    "beyond_embedding": ("error", "hold tokens the model has no row for; the tokenizer is of another model"),
    "doubled_bos": ("warning", "spell out the BOS token that the tokenizer adds; remove it from the text"),
    "missing_bos": ("warning", "begin without BOS: the model wants one, but its tokenizer does not add it"),
    "empty": ("warning", "hold no text and are dropped"),
    "short": ("warning", f"have fewer than {MIN_TOKENS} tokens and are dropped unless they are packed"),
    "duplicate": ("warning", "repeat another row and are dropped"),
    "over_context": ("warning", "are longer than the model's context and are cut"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem in one source: how many rows have it, and where the first of them stand."""

    kind: str
    severity: Severity
    tag: str
    count: int
    rows: tuple[str, ...]
    advice: str


@dataclass(frozen=True, slots=True)
class TagShare:
    """How much of the set one tag is: `weight` as the set says, tokens as the rows hold, both fractions."""

    tag: str
    rows: int
    tokens: int
    weight_share: float
    token_share: float


@dataclass(frozen=True, slots=True)
class Lint:
    """Everything `qtool data lint` found."""

    set_name: str
    findings: tuple[Finding, ...]
    tags: tuple[TagShare, ...]

    @property
    def errors(self) -> int:
        """Rows that must be repaired."""
        return sum(finding.count for finding in self.findings if finding.severity == "error")


def lint(
    spec: SetSpec,
    tokenizer: Any,
    *,
    context_tokens: int | None,
    tasks: TaskIndex,
    vocabulary: int | None = None,
    seed: int = 0,
) -> Lint:
    """Reads the rows of every source, at most MOST_ROWS of each, and reports all that is wrong with them at once."""
    looks = [_Look(source, tokenizer, context_tokens, tasks, vocabulary) for source in spec.sources]
    for look in looks:
        look.read(seed)
    weights = sum(source.weight for source in spec.sources)
    tokens = max(sum(look.tokens for look in looks), 1)
    shares = tuple(
        TagShare(look.source.tag, look.rows, look.tokens, look.source.weight / weights, look.tokens / tokens)
        for look in looks
    )
    return Lint(spec.name, tuple(finding for look in looks for finding in look.findings()), shares)


@dataclass
class _Look:
    """One source while it is read."""

    source: SourceSpec
    tokenizer: Any
    context_tokens: int | None
    tasks: TaskIndex
    vocabulary: int | None = None
    rows: int = 0
    tokens: int = 0
    _found: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # kind, detail -> first rows
    _counts: dict[tuple[str, str], int] = field(default_factory=dict)
    _seen: set[bytes] = field(default_factory=set)

    def read(self, seed: int) -> None:
        most = MOST_GENERATED if self.source.generator is not None else MOST_ROWS
        for row in islice(self._readable(seed), most):
            self.rows += 1
            self._look_at(row)

    @cached_property
    def _lacks_bos(self) -> bool:
        """A trait of the model, so it is found out once and not for each row."""
        return wants_bos(self.tokenizer) and not uses_bos(self.tokenizer)

    def findings(self) -> Iterator[Finding]:
        for (kind, detail), rows in self._found.items():
            severity, advice = _KINDS[kind]
            text = f"{advice}: {detail}" if detail else advice
            yield Finding(kind, severity, self.source.tag, self._counts[kind, detail], tuple(rows), text)

    def _readable(self, seed: int) -> Iterator[Row]:
        def damaged(error: DataError) -> None:
            self._note("unreadable", str(error))

        try:
            yield from source_rows(self.source, seed=seed, damaged=damaged)
        except DataError as error:
            self._note("unreadable", self.source.origin, str(error))

    def _look_at(self, row: Row) -> None:
        turns = self.source.messages or ("messages" if "text" not in row.fields and self.source.text is None else None)
        if turns in row.fields and not self.tokenizer.chat_template:
            self._note("missing_template", row.where)
            return
        try:
            text = text_of(row, self.source, self.tokenizer)
        except DataError as error:
            self._note("template_refused" if turns in row.fields else "unreadable", str(error))
            return
        if not text.strip():
            self._note("empty", row.where)
            return
        tokens = encode(self.tokenizer, text)
        self.tokens += len(tokens)
        self._check_bos(row, text, is_chat=turns in row.fields)
        self._check_tokens(row, tokens)
        if task := self.tasks.repeated(text):
            self._note("contaminated", row.where, f"task {task}")

    def _check_bos(self, row: Row, text: str, *, is_chat: bool) -> None:
        start = self.tokenizer.bos_token
        if start is None or is_chat:
            return
        if text.lstrip().startswith(start):
            self._note("doubled_bos", row.where)
        elif self._lacks_bos:
            self._note("missing_bos", row.where)

    def _check_tokens(self, row: Row, tokens: tuple[int, ...]) -> None:
        if self.vocabulary is not None and max(tokens, default=0) >= self.vocabulary:
            self._note("beyond_embedding", row.where)
        if len(tokens) < MIN_TOKENS:
            self._note("short", row.where)
        if self.context_tokens is not None and len(tokens) > self.context_tokens and not self.source.joins_rows:
            self._note("over_context", row.where)
        key = hashlib.blake2b(str(tokens).encode(), digest_size=8).digest()
        if key in self._seen:
            self._note("duplicate", row.where)
        self._seen.add(key)

    def _note(self, kind: str, row: str, detail: str = "") -> None:
        rows = self._found.setdefault((kind, detail), [])
        self._counts[kind, detail] = self._counts.get((kind, detail), 0) + 1
        if len(rows) < ROWS_SHOWN:
            rows.append(row)


def lint_text(found: Lint) -> str:
    """The findings for a reader, worst first, with the rows they stand in."""
    lines = [f"set {found.set_name!r}:"]
    for tag in found.tags:
        lines.append(
            f"  {tag.tag}: {tag.rows} rows, {tag.tokens} tokens; {tag.weight_share:.0%} by weight, "
            f"{tag.token_share:.0%} of the tokens"
        )
    whole = {tag.tag: tag.rows for tag in found.tags}
    ordered = sorted(found.findings, key=lambda entry: (entry.severity, entry.kind, entry.advice))
    for (severity, advice), same in groupby(ordered, key=lambda entry: (entry.severity, entry.advice)):
        findings = tuple(same)
        lines.append(f"{severity}: {sum(finding.count for finding in findings):,} rows {advice}")
        lines += (f"  {finding.tag}: {_where(finding, whole[finding.tag])}" for finding in findings)
    if not found.findings:
        lines.append("nothing to complain about")
    return "\n".join(lines)


def _where(finding: Finding, rows: int) -> str:
    """The rows that have the problem; what all rows of a source share is one trait, not a list."""
    if finding.count >= rows > 1:
        return f"all {finding.count:,} rows"
    more = f" and {finding.count - len(finding.rows):,} more" if finding.count > len(finding.rows) else ""
    return f"{', '.join(finding.rows)}{more}"


def read_context(model: Path) -> int | None:
    """Longest sequence the model in `model` was made for."""
    from qtool.models.checkpoint import read_config

    config = read_config(model)
    limits = [config.get(name) for name in ("max_position_embeddings", "n_positions")]
    return next((limit for limit in limits if isinstance(limit, int)), None)
