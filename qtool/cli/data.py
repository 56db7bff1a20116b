"""`qtool data`: looks at calibration data before anything is run on it."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show, stage_progress

app = typer.Typer(no_args_is_help=True, help="Check calibration data before it is used.")


@app.callback()
def options() -> None:
    """Check calibration data before it is used."""


@app.command("lint")
def lint_command(
    set_name: Annotated[str, typer.Argument(metavar="SET", help="Name of a calibration set, a .toml, or a data file.")],
    model: Annotated[str, typer.Option(help="The model whose tokenizer, template and context the rows must fit.")],
    evals_dir: Annotated[Path | None, typer.Option(help="A folder of your own task files, for contamination.")] = None,
    sets_dir: Annotated[Path | None, typer.Option(help="A folder of your own set files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Report rows that are broken, doubled, too short or long, or repeat evaluation items; exit code 4 on errors."""
    stage_progress(as_json).note(f"{set_name}: checking the rows for {model}")

    from qtool.data.lint import lint_text
    from qtool.errors import DataError
    from qtool.front_door.looking import data_lint

    found = data_lint(set_name, model=model, evals_dir=evals_dir, sets_dir=sets_dir)
    show(found, as_json, lint_text(found))
    if found.errors:
        raise typer.Exit(DataError.exit_code)
