"""Runs the code of a page, in the page's order and in one empty folder: `python tests/docs/run_pages.py [PAGE ...]`.

Commands after `$` in blocks called console, Python, and the task of how-to/task.md. The tests run the quick pages; this
program runs the rest too, and blocks called `python slow`.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = (
    "README.md",
    "docs/python-api.md",
    *(f"docs/how-to/{name}.md" for name in ("method", "metric", "task", "format")),
)
SLOW = ("docs/tutorial.md",)
VERDICT_CODES = (0, 1, 2)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(what stands after the three backticks, text) of each code block."""
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        yield found[1].strip(), found[2]


def run_page(name: str, folder: Path, *, slow: bool = False) -> None:
    """Raises what the page's code raises; a command must end in a verdict's code and say nothing is wrong."""
    names: dict[str, object] = {}
    for kind, text in blocks(ROOT / name):
        if kind == "python" or (kind == "python slow" and slow):
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.chdir(folder):
                exec(compile(text, name, "exec"), names)
        elif kind == "toml task":
            (folder / "colours.toml").write_text(text)
            (folder / "colours.jsonl").write_text('{"id": "1", "word": "red", "answer": " der"}\n')
        elif kind == "console":
            for line in (line[2:] for line in text.splitlines() if line.startswith("$ ")):
                command = [sys.executable, "-m", *shlex.split(line)]
                done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
                if done.returncode not in VERDICT_CODES or "qtool:" in done.stderr:
                    raise AssertionError(f"{name}: {line}: {done.stderr}")


if __name__ == "__main__":
    for page in sys.argv[1:] or (*QUICK, *SLOW):
        with tempfile.TemporaryDirectory() as place:
            run_page(page, Path(place), slow=True)
        sys.stdout.write(f"{page}: runs\n")
