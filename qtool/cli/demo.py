"""`qtool demo`: the whole pipeline on a bundled reference model."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("runs/demo"),
    items: Annotated[int | None, typer.Option(min=1, help="Most items per task (default: as planned).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Run the shipped demo plan on a bundled reference model: calibrate, quantize, evaluate, report, bundle."""
    from qtool.cli.output import show_report
    from qtool.front_door.shipping import demo

    show_report(demo(output=output, items=items or limit, threads=threads, quiet=quiet), output, as_json)
