"""`qtool bench`: how fast variants answer, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.options import Threads
from qtool.cli.output import show, stage_progress


def command(
    variants: Annotated[list[str], typer.Argument(help="Variant or model folders, reference names, or server URLs.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for profiles and raw samples.")],
    concurrency: Annotated[
        list[int] | None, typer.Option("--concurrency", "-c", min=1, help="Requests in flight; repeats. Default 1, 8.")
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="Requests per second arriving at random (open load); repeats.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests timed at each level; p99 needs 1000.")] = 24,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Batches 1 to 32 and 10, 50 and 100 users, instead of --concurrency.")
    ] = False,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of each prompt. Default 64.")] = None,
    output_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of each answer. Default 32.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Take both lengths from this task: the medians of its prompts and answers.")
    ] = None,
    ttft_limit_ms: Annotated[float, typer.Option(min=0, help="Goodput: first token within this time.")] = 2000.0,
    tpot_limit_ms: Annotated[float, typer.Option(min=0, help="Goodput: mean time of a later token.")] = 100.0,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    backend: Annotated[str, typer.Option(help="Engine backend for folders: qtool or transformers.")] = "qtool",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profiles as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Time variants side by side: TTFT, TPOT, ITL, end to end, throughput, cold start and memory."""
    stage_progress(quiet).note(f"{output}: timing {', '.join(variants)}")
    from qtool.front_door.timing import refuse_failed, time_variants

    found = time_variants(
        variants,
        output,
        concurrency=concurrency or (),
        rates=rate or (),
        requests=requests,
        sweep=sweep,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        task=task,
        ttft_limit_ms=ttft_limit_ms,
        tpot_limit_ms=tpot_limit_ms,
        dtype=dtype,
        device=device,
        backend=backend,
        threads=threads,
        quiet=quiet,
    )
    show({profile.variant: profile for profile in found.profiles}, as_json, found.table())
    refuse_failed(found)
