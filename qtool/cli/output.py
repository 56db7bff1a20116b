"""How every command prints: results on stdout, as text or as one JSON object; progress on stderr."""

import os
import sys
from pathlib import Path

from qtool.errors import StoreError
from qtool.progress import Progress, chosen_progress
from qtool.records.report import Report


def show(record: object, as_json: bool, text: str) -> None:
    """Prints `record` as one JSON object when `as_json` is set, otherwise `text`, on stdout."""
    from qtool.store.codec import to_json

    if sys.stdout is None:
        raise StoreError("standard output is closed; the result cannot be printed")
    try:
        sys.stdout.write(to_json(record) if as_json else text.rstrip("\n") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # a reader that has seen enough is no error: see app.main
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # or Python tries once more at its end, and complains  # noqa: SIM115
        raise StoreError(f"standard output: the result cannot be written: {error.strerror}") from error


def stage_progress(quiet: bool) -> Progress:
    """Bars on stderr, or nothing when `quiet` is set."""
    return chosen_progress(quiet)


def show_report(report: Report, folder: Path, as_json: bool) -> None:
    """Prints a run's table, where its report lies and, where one was made, its bundle."""
    from qtool.report.texts.text_table import terminal_colour, terminal_width, text_table
    from qtool.store import layout

    lines = [
        text_table(report, width=terminal_width(), colour=terminal_colour()),
        "",
        f"report: {folder / layout.REPORT_PAGE}",
    ]
    if report.recommendation.variant is not None:
        bundle = layout.RunFolder(folder).bundle
        lines.append(f"bundle: {bundle}  (serve it: qtool serve {bundle})")
    show(report, as_json, "\n".join(lines))
