"""`qtool plot`: one plot of a report as a file."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    run: Annotated[Path, typer.Argument(help="Folder that `qtool run` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .svg or .png.")],
    kind: Annotated[
        str,
        typer.Option(
            help="tradeoff, tradeoff-memory, tradeoff-cost, latency, throughput, slices, churn, calibration or "
            "sensitivity."
        ),
    ] = "tradeoff",
    as_json: Annotated[bool, typer.Option("--json", help="Print the plot's data as one JSON object.")] = False,
) -> None:
    """Draw one plot of a run's report into an SVG or PNG file."""
    from qtool.front_door.reporting import plot

    found = plot(run, output=output, kind=kind)
    record = {"kind": found.kind, "title": found.title, "head": found.head, "rows": found.rows}
    show(record, as_json, f"{output}: {found.title}\n{found.alt}")
