"""`qtool compare`: the verdicts on two evaluations that exist already, whoever made them."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    baseline: Annotated[
        Path, typer.Argument(help="Evaluations of the baseline: ours, or what lm-eval, nel or inspect_ai wrote.")
    ],
    variant: Annotated[Path, typer.Argument(help="Evaluations of the variant, of the same kind.")],
    margin: Annotated[
        str | None,
        typer.Option(
            help="Accepted drop in points, or as a share of the base's score (2%); 2, or what ours were made for."
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Which value, or inspect_ai scorer, of foreign samples to compare.")
    ] = None,
    log_filter: Annotated[str | None, typer.Option("--filter", help="Which filter of lm-eval's samples.")] = None,
    export: Annotated[
        str | None, typer.Option(help="Also write both sides, if they are ours, as lm_eval, nel or inspect files.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for --export: baseline/ and variant/ are made in it.")
    ] = Path("exported"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two evaluations item by item; end in PASS (exit code 0), FAIL (1) or UNDECIDED (2)."""
    from qtool.evaluate.verdicts.compare import render
    from qtool.front_door.evaluation import compare
    from qtool.records.ship_rule import exit_code

    found = compare(baseline, variant, margin=margin, metric=metric, filter=log_filter, export=export, output=output)
    show(found, as_json, render(found))
    raise typer.Exit(exit_code(found.overall))
