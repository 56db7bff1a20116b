"""`qtool run`: a whole plan, from calibration to bundle."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show_report, stage_progress


def command(
    plan: Annotated[Path, typer.Argument(help="The plan.toml: base model, calibration, variants, tasks, budget.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default runs/<name of the plan>.")
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Most items per task (default: as planned).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Calibrate, quantize, evaluate, time, report and bundle, as a plan says; resumes, and skips what is unchanged.

    Exit code 0 when a variant is recommended, 1 when none may be shipped, 2 when that is undecided.
    """
    stage_progress(quiet).note(f"{plan}: checking the plan")

    from qtool.front_door.shipping import run
    from qtool.pipeline.plan import read_plan
    from qtool.records.ship_rule import exit_code, run_verdict

    asked = read_plan(plan)
    folder = output or Path("runs") / asked.name
    report = run(asked, output=folder, items=items or limit, threads=threads, quiet=quiet)
    show_report(report, folder, as_json)
    raise typer.Exit(exit_code(run_verdict(report)))
