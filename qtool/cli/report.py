"""`qtool report`: the trade-off of a finished run, in the terminal and as files; and two runs side by side."""

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from qtool.cli.output import show


class _WriteByDefault(TyperGroup):
    """`qtool report RUN` means `qtool report write RUN`; a run called diff is written ./diff."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        """Puts the name of the default command before arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["write", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_WriteByDefault,
    no_args_is_help=True,
    help="Write the report of a run: `qtool report RUN`. Or tell what changed between two runs.",
)


@app.command("write")
def command(
    run: Annotated[Path, typer.Argument(help="Folder that `qtool run` wrote.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: report.json without layers, curves and answers.")
    ] = False,
) -> None:
    """Join verdicts, latency and size of a run; write report.json, report.md and report.html into it."""
    from qtool.front_door.reporting import report, without_samples
    from qtool.report.texts.text_table import terminal_colour, terminal_width, text_table
    from qtool.store.layout import REPORT_PAGE

    result = report(run)
    text = text_table(result, width=terminal_width(), colour=terminal_colour())
    show(without_samples(result) if as_json else result, as_json, f"{text}\n\nreport: {run / REPORT_PAGE}")


@app.command("diff")
def diff(
    before: Annotated[Path, typer.Argument(help="Folder of the earlier run.")],
    after: Annotated[Path, typer.Argument(help="Folder of the later run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell what changed between two runs of one base: recommendation, verdicts, scores, sizes, times."""
    from qtool.front_door.reporting import report_diff
    from qtool.report.difference import difference_text

    found = report_diff(before, after)
    show(found, as_json, difference_text(found))
