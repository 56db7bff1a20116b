"""The `qtool` program: its commands, and the one place that turns an error into a line and an exit code."""

import os
import signal
import sys
import traceback
from types import FrameType, TracebackType
from typing import Annotated, Any

import typer

from qtool import __version__
from qtool.cli import (
    bench,
    bundle,
    calibrate,
    canary,
    choose,
    compare,
    convert,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    import_,
    init,
    lint,
    list_,
    plot,
    push,
    quantize,
    report,
    reproduce,
    run,
    schema,
    sensitivity,
    serve,
    show,
    verify,
    version,
)
from qtool.errors import QtoolError, UsageError
from qtool.machine.threads import wait_briefly

CLOSED_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
INTERRUPTED = 130
FAULT = 70
_TYPERS_USAGE = 2
_KEPT = {
    "run": "finished stages and answers are kept, and the same command goes on from there",
    "quantize": "finished blocks are kept, and the same command goes on from there",
    "calibrate": "finished parts are kept, and the same command goes on from there",
    "eval": "answers so far are kept, and the same command asks only what is missing",
    "sensitivity": "layers measured so far are kept, and the same command goes on from there",
    "serve": "the server has stopped",
}
_KEPT_NOTHING = "nothing is kept; run the same command again"

app = typer.Typer(
    name="qtool",
    help="May I ship this 8-bit or 4-bit variant of my model, for my task, on my machine?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (
    ("demo", demo.command),
    ("init", init.command),
    ("run", run.command),
    ("quantize", quantize.command),
    ("eval", evaluate.command),
    ("choose", choose.command),
    ("plot", plot.command),
    ("bundle", bundle.command),
    ("lint", lint.command),
    ("verify", verify.command),
    ("reproduce", reproduce.command),
    ("push", push.command),
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
    ("schema", schema.command),
    ("version", version.command),
)
for _name, _command in _COMMANDS:
    app.command(_name)(_command)
app.add_typer(calibrate.app, name="calibrate")
app.add_typer(canary.app, name="canary")
app.add_typer(data.app, name="data")
app.add_typer(report.app, name="report")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qtool {__version__}")
        raise typer.Exit


@app.callback()
def options(
    print_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """May I ship this 8-bit or 4-bit variant of my model, for my task, on my machine?"""


def main() -> None:
    """Runs one command; a QtoolError becomes one line on stderr and its own exit code.

    Codes 0, 1 and 2 are verdicts: whatever else ends a command has another one.
    """
    wait_briefly()
    signal.signal(signal.SIGTERM, _interrupt)  # a plain kill cleans up like Ctrl-C does
    _use_own_code_for_usage()
    try:
        app()
    except QtoolError as error:
        sys.stderr.write(f"qtool: {error}\n")
        sys.exit(error.exit_code)
    except SystemExit as ending:
        sys.exit(_told(ending.code))
    finally:
        sys.excepthook = _end_with_own_code  # only now: typer puts its own in place


def _end_with_own_code(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python ends with 1 after an exception that nobody caught, and a script takes 1 for FAIL."""
    if issubclass(kind, KeyboardInterrupt):
        os._exit(INTERRUPTED)
    traceback.print_exception(kind, error, trace)
    sys.stderr.write("qtool: this is a fault of qtool itself; please report it with the lines above\n")
    sys.stderr.flush()
    os._exit(FAULT)


def _use_own_code_for_usage() -> None:
    """Typer ends wrong usage with 2, which is a verdict here (UNDECIDED)."""
    kind: Any
    for kind in typer.BadParameter.__mro__:
        if getattr(kind, "exit_code", None) == _TYPERS_USAGE:
            kind.exit_code = UsageError.exit_code


def _told(code: Any) -> Any:
    """The exit code, after the line that a user needs who interrupted a command."""
    if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # typer's sign for a reader that has gone (`| head`)
        return CLOSED_PIPE
    if code != INTERRUPTED:
        return code
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    sys.stderr.write(f"qtool: interrupted; {_KEPT.get(command, _KEPT_NOTHING)}\n")
    return 128 + signal.SIGTERM if _signals else code


_signals: list[int] = []  # SIGTERM, if that is what ended the command


def _interrupt(number: int, frame: FrameType | None) -> None:
    _signals.append(number)
    raise KeyboardInterrupt
