"""`qtool choose`: which variant of a run to deploy under limits of your own."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show


def command(
    run: Annotated[Path, typer.Argument(help="Folder that `qtool run` wrote.")],
    load: Annotated[
        int | None, typer.Option(min=1, help="Requests in flight (default: the highest load that was timed).")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Peak memory, such as 8GB.")] = None,
    p95_ttft: Annotated[str | None, typer.Option(help="95 % of first tokens within this, such as 300ms.")] = None,
    p95_e2e: Annotated[str | None, typer.Option(help="95 % of answers within this, such as 2s.")] = None,
    max_drop: Annotated[
        list[str] | None, typer.Option(help="TASK=POINTS accepted instead of the run's margin; repeats.")
    ] = None,
    max_cost: Annotated[float | None, typer.Option(min=0, help="Dollars per million good tokens.")] = None,
    card: Annotated[str | None, typer.Option(help="Count instances on a card of this size, such as 24GB.")] = None,
    context: Annotated[int | None, typer.Option(min=1, help="Tokens of context each request may fill.")] = None,
    prices: Annotated[Path | None, typer.Option(help="A price table instead of the shipped one.")] = None,
    machine: Annotated[str | None, typer.Option(help="Row of the price table.")] = None,
    dollars_per_hour: Annotated[float | None, typer.Option(min=0, help="Price of the machine.")] = None,
    api_input: Annotated[float | None, typer.Option(min=0, help="API: dollars per million tokens in.")] = None,
    api_output: Annotated[float | None, typer.Option(min=0, help="API: dollars per million tokens out.")] = None,
    on_call: Annotated[float | None, typer.Option(min=0, help="Dollars a month for people on call.")] = None,
    storage: Annotated[float | None, typer.Option(min=0, help="Dollars a month for storage.")] = None,
    egress: Annotated[float | None, typer.Option(min=0, help="Dollars a month for egress.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recommend a variant under your limits by confidence bounds; end in PASS (0), FAIL (1) or UNDECIDED (2)."""
    from qtool.front_door.choosing import choose
    from qtool.records.ship_rule import exit_code
    from qtool.report.money.choose import choice_text

    found = choose(
        run,
        load=load,
        max_memory=max_memory,
        p95_ttft=p95_ttft,
        p95_e2e=p95_e2e,
        max_drop=max_drop or (),
        max_cost=max_cost,
        card=card,
        context=context,
        prices=prices,
        machine=machine,
        dollars_per_hour=dollars_per_hour,
        api_input=api_input,
        api_output=api_output,
        on_call=on_call,
        storage=storage,
        egress=egress,
    )
    show(found, as_json, choice_text(found))
    raise typer.Exit(exit_code(found.verdict))
