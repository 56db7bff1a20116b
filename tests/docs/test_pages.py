"""The documents say what is so: their code runs, their links lead somewhere, their table of errors is the program's."""

import re
from pathlib import Path

import pytest
from run_pages import QUICK, ROOT, run_page

from qtool import errors

PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])


@pytest.mark.parametrize("name", QUICK)
def test_the_code_of_a_page_runs(name: str, tmp_path: Path) -> None:
    run_page(name, tmp_path)


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
    found = [each for direct in kind.__subclasses__() for each in (direct, *_below(direct))]
    return [each for each in found if each.__module__ == errors.__name__]  # others have the code of one of these


def test_the_table_of_exit_codes_is_the_programs() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert error_table() in page, f"put this into docs/troubleshooting.md:\n{error_table()}"
