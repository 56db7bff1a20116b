"""`qtool compare`: the verdicts on two evaluations that exist already, ours or lm-eval's."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    baseline: Annotated[Path, typer.Argument(help="Evaluations of the baseline: our folder, or lm-eval's samples.")],
    variant: Annotated[Path, typer.Argument(help="Evaluations of the variant, of the same kind.")],
    margin: Annotated[
        float | None, typer.Option(help="Accepted drop in points; 2, or what ours were made for.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Which value of lm-eval's samples to compare.")] = None,
    log_filter: Annotated[str | None, typer.Option("--filter", help="Which filter of lm-eval's samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two evaluations item by item; end in PASS (exit code 0), FAIL (1) or UNDECIDED (2)."""
    from qtool.evaluate.compare import render
    from qtool.front_door.evaluation import compare
    from qtool.records.ship_rule import exit_code

    found = compare(baseline, variant, margin=margin, metric=metric, filter=log_filter)
    show(found, as_json, render(found))
    raise typer.Exit(exit_code(found.overall))
