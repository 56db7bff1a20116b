"""`qtool calibrate`: activation ranges of a model over a set, and whether the set was good enough."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from qtool.cli.options import Threads
from qtool.cli.output import show, stage_progress


class _RunByDefault(TyperGroup):
    """`qtool calibrate MODEL ...` means `qtool calibrate run MODEL ...`; a folder called merge is written ./merge."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        """Puts the name of the default command before arguments that name none."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Find the activation ranges of every linear layer on a set of text, and certify the set: "
    "`qtool calibrate MODEL --set NAME -o DIR`. Also merges shards and sweeps observers.",
)

Model = Annotated[str, typer.Argument(help="Reference name, folder or hub id.")]
SetName = Annotated[str, typer.Option("--set", help="Name of a calibration set, a .toml, or a data file or folder.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="New folder for the calibration.")]
SequenceCount = Annotated[int, typer.Option("--sequences", min=1, help="Sequences that make the ranges.")]
SequenceTokens = Annotated[int, typer.Option("--sequence-tokens", min=1, help="Longest sequence in tokens.")]
Seed = Annotated[int, typer.Option(help="Which rows are drawn.")]
Observers = Annotated[
    list[str] | None,
    typer.Option(
        "--observer", help="absmax, percentile:99.9, mse:4:channel, ...; repeats. Default: absmax, percentile."
    ),
]
Traffic = Annotated[
    str | None,
    typer.Option(help="A second set, of text the model will meet: it makes no range and only checks them."),
]
Chat = Annotated[
    bool | None,
    typer.Option("--chat/--no-chat", help="Show questions in the model's chat template (default: where it has one)."),
]
SetsDir = Annotated[Path | None, typer.Option(help="A folder of your own set files.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16; auto is float32 on a CPU.")]
Budget = Annotated[
    int, typer.Option("--activation-mib", min=0, help="Activations kept in memory; the rest goes to disk.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


@app.command("run")
def command(
    model: Model,
    output: Output,
    set_name: SetName = "mixed",
    sequences: SequenceCount = 128,
    sequence_tokens: SequenceTokens = 256,
    seed: Seed = 0,
    observer: Observers = None,
    traffic: Traffic = None,
    chat: Chat = None,
    shard: Annotated[str | None, typer.Option(help="Only part i of n, as i/n; `merge` joins them.")] = None,
    sets_dir: SetsDir = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    activation_mib: Budget = 2048,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a set through a model once; write ranges, histograms and the certificate. Interrupted, it resumes."""
    stage_progress(quiet).note(f"{output}: calibrating {model} on {set_name}; opening the model")

    from qtool.calibrate.terminal_text import shard_text
    from qtool.front_door.calibration import calibrate, calibrate_shard

    asked: dict[str, Any] = {
        "set": set_name,
        "sequences": sequences,
        "sequence_tokens": sequence_tokens,
        "seed": seed,
        "observers": observer or (),
        "traffic": traffic,
        "chat": chat,
        "sets_dir": sets_dir,
        "device": device,
        "dtype": dtype,
        "activation_mib": activation_mib,
        "threads": threads,
        "quiet": quiet,
    }
    if shard is not None:
        part = calibrate_shard(model, output, shard=shard, **asked)
        show(part, as_json, shard_text(part, output))
        return
    calibration = calibrate(model, output, **asked)
    show(calibration, as_json, f"{calibration.table()}\n\n{output}")


@app.command("merge")
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Folders of all shards of one set, in any order.")],
    output: Output,
    as_json: AsJson = False,
) -> None:
    """Join the shards of one set to the calibration that one pass over all of it would have given."""
    from qtool.front_door.calibration import merge as join

    calibration = join(shards, output)
    show(calibration, as_json, f"{calibration.table()}\n\n{output}")


@app.command("sweep")
def sweep_command(
    model: Model,
    output: Output,
    task: Annotated[list[str] | None, typer.Option(help="A task to score each observer on; repeats.")] = None,
    scheme: Annotated[str, typer.Option(help="w8a8 or fp8: the schemes with ranges of activations.")] = "w8a8",
    items: Annotated[
        int | None, typer.Option(min=1, help="Items of each task; default: the task's own number.")
    ] = None,
    blamed: Annotated[int, typer.Option(min=0, help="Inputs tried apart where an observer fails a task.")] = 3,
    set_name: SetName = "mixed",
    sequences: SequenceCount = 128,
    sequence_tokens: SequenceTokens = 256,
    seed: Seed = 0,
    observer: Annotated[
        list[str] | None, typer.Option(help="An observer to try; repeats. Default: nine of them.")
    ] = None,
    sets_dir: SetsDir = None,
    evals_dir: Annotated[Path | None, typer.Option(help="A folder of your own task files.")] = None,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score every way to choose activation ranges on your tasks, in one table, and name the layers that hurt."""
    from qtool.front_door.calibration import sweep
    from qtool.pipeline.sweep import sweep_text

    found = sweep(
        model,
        output,
        tasks=task or (),
        scheme=scheme,
        items=items,
        blamed=blamed,
        set=set_name,
        sequences=sequences,
        sequence_tokens=sequence_tokens,
        seed=seed,
        observers=observer or (),
        sets_dir=sets_dir,
        evals_dir=evals_dir,
        threads=threads,
        quiet=quiet,
    )
    show(found, as_json, sweep_text(found))
