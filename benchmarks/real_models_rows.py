"""The rows of the drive over real models: one JSON object a line, written as soon as a step ends."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step of one model in one setting of the environment. `note` says why it was not run; `numbers` are what the
    bounds need to know of it besides time and memory."""

    model: str
    setting: str
    step: str
    command: str
    code: int | None = None
    right: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    first_word_s: float | None = None
    flags: list[str] = field(default_factory=list)
    segments: list[tuple[float, str]] = field(default_factory=list)
    tail: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def verdict(self) -> str:
        """How it ended, in a word or two."""
        return self.note or ("ok" if self.right else f"FAILED with code {self.code}")


class Rows:
    """Rows by model, setting and step; the newest of each stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[tuple[str, str, str], StepRow] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = StepRow(**json.loads(line))
                self._rows[row.model, row.setting, row.step] = row

    def has(self, model: str, setting: str, step: str) -> bool:
        """Whether the step went right already; a failed one is tried again."""
        row = self._rows.get((model, setting, step))
        return row is not None and row.right

    def add(self, row: StepRow) -> None:
        """Keeps `row`, on disk at once."""
        self._rows[row.model, row.setting, row.step] = row
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")

    def all(self) -> list[StepRow]:
        """The newest row of each step."""
        return list(self._rows.values())
