"""`qtool eval`: how good a variant is at its tasks, and whether it may replace the baseline."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show, stage_progress


def command(
    variant: Annotated[
        str,
        typer.Argument(
            help="Variant folder, model folder, reference name, hub id, or URL of an OpenAI-compatible server."
        ),
    ],
    task: Annotated[list[str], typer.Option(help="Task name or TOML file; repeatable; `all` for every own task.")],
    baseline: Annotated[
        str | None, typer.Option(help="The baseline: its model, or a folder of its finished evaluations.")
    ] = None,
    items: Annotated[int | None, typer.Option(min=1, help="Items per task (default: the task file's number).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            help="Accepted drop in points, or as a share of the base's score (2%), instead of each task's own."
        ),
    ] = None,
    tier: Annotated[
        list[str] | None,
        typer.Option(help="TASK=critical (must pass), supporting (must not fail) or advisory; repeatable."),
    ] = None,
    base_score: Annotated[
        list[str] | None,
        typer.Option(help="TASK=0.62: no verdict where the base scores far from what is known of it; repeatable."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Answers to each item, drawn at --temperature (default: the task's, 1).")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Draw answers at this temperature (default: the task's, 0: greedy).")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A local file to take the task's items from.")] = None,
    evals_dir: Annotated[Path | None, typer.Option(help="A folder with further task files.")] = None,
    until_decided: Annotated[
        int | None, typer.Option(min=1, help="Go on with more items, up to this many, until each task is decided.")
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option("--chat/--no-chat", help="Ask through the model's chat template (default: where it has one)."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Items the engine works on at once.")] = 32,
    in_flight: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: Annotated[str, typer.Option(help="The engine that answers.")] = "qtool",
    tokenizer: Annotated[
        str | None, typer.Option(help="With a URL: a local model whose tokenizer the server's model has.")
    ] = None,
    generate_all: Annotated[
        bool, typer.Option("--generate-all", help="Generate every answer, also where one pass would tell it.")
    ] = False,
    allow_unverified: Annotated[
        bool, typer.Option("--allow-unverified", help="Take a variant whose verification failed.")
    ] = False,
    unsafe_code: Annotated[
        bool, typer.Option("--unsafe-code", help="Run code that the model writes without a sandbox.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the results.")] = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Evaluate a variant; with a baseline, end in PASS (exit code 0), FAIL (1) or UNDECIDED (2)."""
    stage_progress(quiet).note(f"{variant}: evaluating {', '.join(task)}; opening the model")
    from qtool.front_door.evaluation import evaluate
    from qtool.front_door.margins import pairs, share
    from qtool.records.ship_rule import exit_code

    found = evaluate(
        variant,
        tasks=task,
        baseline=baseline,
        items=items or limit,
        margin=margin,
        tiers=pairs("--tier", tier),
        base_scores={
            name: share("--base-score", name, text) for name, text in pairs("--base-score", base_score).items()
        },
        repeats=repeats,
        temperature=temperature,
        data=data,
        evals_dir=evals_dir,
        until_decided=until_decided,
        chat=chat,
        concurrency=in_flight or concurrency,
        dtype=dtype,
        device=device,
        backend=backend,
        tokenizer=tokenizer,
        generate_all=generate_all,
        allow_unverified=allow_unverified,
        unsafe_code=unsafe_code,
        output=output,
        threads=threads,
        quiet=quiet,
    )
    show(found, as_json, found.table())
    raise typer.Exit(exit_code(found.overall))
