"""`qtool canary`: looks at, and decides on, the canary of a running server."""

from typing import Annotated

import typer

from qtool.cli.output import show

app = typer.Typer(no_args_is_help=True, help="Look at the canary of a running server, or decide on it.")


@app.callback()
def options() -> None:
    """Look at the canary of a running server, or decide on it."""


@app.command("status")
def status_command(
    url: Annotated[str, typer.Argument(help="Address of the server, or of its admin port: http://127.0.0.1:8000.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print how the candidate compares with the incumbent; a key is read from QTOOL_ADMIN_KEY."""
    from qtool.front_door.canary import canary_status

    status = canary_status(url)
    show(status, as_json, status.text())


@app.command("decide")
def decide_command(
    url: Annotated[str, typer.Argument(help="Address of the server, or of its admin port: http://127.0.0.1:8000.")],
    action: Annotated[str, typer.Argument(help="promote, withdraw, hold (decide nothing) or resume.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Promote, withdraw, hold or resume the candidate; a key is read from QTOOL_ADMIN_KEY."""
    from qtool.front_door.canary import canary_decide

    status = canary_decide(url, action)
    show(status, as_json, status.text())
