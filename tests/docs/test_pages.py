"""The documents say what is so: their code runs, their links lead somewhere, their table of errors is the program's."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qtool import errors

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])
RUN = (
    "README.md",
    "docs/tutorial.md",
    "docs/python-api.md",
    *(f"docs/how-to/{name}.md" for name in ("method", "metric", "task")),
)
VERDICT_CODES = (0, 1, 2)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(what stands after the three backticks, text) of each code block."""
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        yield found[1].strip(), found[2]


@pytest.mark.parametrize("name", RUN)
def test_the_code_of_a_page_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands after `$`, Python, and files given as TOML, in the page's order and in one empty folder."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for kind, text in blocks(ROOT / name):
        if kind == "python":
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                exec(compile(text, name, "exec"), names)
        elif kind == "toml task":
            (tmp_path / "colours.toml").write_text(text)
            (tmp_path / "colours.jsonl").write_text('{"id": "1", "word": "red", "answer": " der"}\n')
        elif kind == "console":
            for line in (line[2:] for line in text.splitlines() if line.startswith("$ ")):
                command = [sys.executable, "-m", *shlex.split(line)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                assert done.returncode in VERDICT_CODES and "qtool:" not in done.stderr, (line, done.stderr)  # noqa: PT018


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []


def error_table() -> str:
    """The table of docs/troubleshooting.md, from the error tree."""
    kinds = [errors.QtoolError, *sorted(_below(errors.QtoolError), key=lambda kind: (kind.exit_code, kind.__name__))]
    rows = {}
    for kind in kinds:
        first = (kind.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
        rows.setdefault(kind.exit_code, []).append(f"{first}")
    lines = ["| code | meaning |", "|---|---|"]
    lines += [f"| {code} | {' '.join(texts)} |" for code, texts in sorted(rows.items())]
    return "\n".join([*lines, "| 130 | Interrupted; the same command resumes. |"])


def _below(kind: type[errors.QtoolError]) -> list[type[errors.QtoolError]]:
    return [
        found for direct in kind.__subclasses__() for found in (direct, *_below(direct)) if "qtool" in found.__module__
    ]


def test_the_table_of_exit_codes_is_the_programs() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert error_table() in page, f"put this into docs/troubleshooting.md:\n{error_table()}"
