"""The `qtool` program: its commands, and the one place that turns an error into a line and an exit code."""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from qtool import __version__
from qtool.cli import (
    bench,
    bundle,
    calibrate,
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    import_,
    list_,
    quantize,
    report,
    run,
    sensitivity,
    serve,
    show,
)
from qtool.errors import QtoolError

app = typer.Typer(
    name="qtool",
    help="May I ship this 8-bit or 4-bit variant of my model, for my task, on my machine?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (
    ("demo", demo.command),
    ("run", run.command),
    ("quantize", quantize.command),
    ("eval", evaluate.command),
    ("report", report.command),
    ("bundle", bundle.command),
    ("serve", serve.command),
    ("bench", bench.command),
    ("compare", compare.command),
    ("import", import_.command),
    ("convert", convert.command),
    ("sensitivity", sensitivity.command),
    ("list", list_.command),
    ("explain", explain.command),
    ("show", show.command),
    ("doctor", doctor.command),
)
for _name, _command in _COMMANDS:
    app.command(_name)(_command)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qtool {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """May I ship this 8-bit or 4-bit variant of my model, for my task, on my machine?"""


def main() -> None:
    """Runs one command; a QtoolError becomes one line on stderr and its own exit code."""
    signal.signal(signal.SIGTERM, _interrupt)  # a plain kill cleans up like Ctrl-C does
    try:
        app()
    except QtoolError as error:
        sys.stderr.write(f"qtool: {error}\n")
        sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
