"""`qtool report`: the trade-off of a finished run, in the terminal and as files."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    run: Annotated[Path, typer.Argument(help="Folder that `qtool run` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Join verdicts, latency and size of a run; write report.json, report.md and report.html into it."""
    from qtool.front_door.shipping import report
    from qtool.report.texts.text_table import text_table
    from qtool.store.layout import REPORT_PAGE

    result = report(run)
    show(result, as_json, f"{text_table(result)}\n\nreport: {run / REPORT_PAGE}")
