"""`qtool run`: a whole plan, from calibration to bundle."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show, stage_progress


def command(
    plan: Annotated[Path, typer.Argument(help="The plan.toml: base model, calibration, variants, tasks, budget.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default runs/<name of the plan>.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many items a task.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Calibrate, quantize, evaluate, time, report and bundle, as a plan says; resumes, and skips what is unchanged.

    Exit code 0 when a variant is recommended, 1 when none may be shipped, 2 when that is undecided.
    """
    from qtool.plan import read_plan

    asked = read_plan(plan)
    raise typer.Exit(carry_out(asked, output or Path("runs") / asked.name, limit, as_json, quiet))


def carry_out(plan: object, folder: Path, limit: int | None, as_json: bool, quiet: bool) -> int:
    """Runs `plan` in `folder`, prints its table and where the report lies, and returns the exit code of the verdict."""
    from qtool import pipeline
    from qtool.records.plan import Plan
    from qtool.records.ship_rule import exit_code, run_verdict
    from qtool.report.text_table import text_table

    assert isinstance(plan, Plan)
    report = pipeline.run(
        plan, folder, progress=stage_progress(quiet), command=shlex.join(["qtool", *sys.argv[1:]]), limit=limit
    )
    lines = [text_table(report), "", f"report: {folder / 'report.html'}"]
    if report.recommendation.variant is not None:
        lines.append(f"bundle: {folder / 'bundle'}  (serve it: qtool serve {folder / 'bundle'})")
    show(report, as_json, "\n".join(lines))
    return exit_code(run_verdict(report))
