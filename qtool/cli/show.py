"""`qtool show`: what a folder is and how it was made."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    folder: Annotated[Path, typer.Argument(help="A variant, calibration, evaluation, run, bundle or model folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print its record as one JSON object.")] = False,
) -> None:
    """Say what a folder is and how it was made; for a variant with its ledger, layer by layer.

    Ends with exit code 7 where a file is no longer what was written.
    """
    from qtool.front_door.looking import show as describe
    from qtool.report.unchanged import refuse_changed

    found = describe(folder)
    show(found.record, as_json, found.text)
    refuse_changed(folder)
