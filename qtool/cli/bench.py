"""`qtool bench`: how fast variants answer, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from qtool.cli.output import show, stage_progress
from qtool.errors import CapacityError, MismatchError, UsageError

_SWEEP = (1, 2, 4, 8, 10, 16, 32, 50, 100)
_TASK_ITEMS = 100


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the profiles as one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
) -> None:
    """Time variants side by side: TTFT, TPOT, ITL, end to end, throughput, cold start and memory."""
    from qtool.latency.stage import measure
    from qtool.latency.summary import text
    from qtool.latency.timing import Limits
    from qtool.records.plan import LatencySettings

    _check_rates(rate or [])
    progress = stage_progress(quiet)
    progress.note(f"{output}: timing {', '.join(variants)}")
    named = _named(variants)
    levels = _SWEEP if sweep else tuple(dict.fromkeys(concurrency or (1, 8)))
    lengths = _task_lengths(task, named) if task else (64, 32)
    _refuse_other_bases(named)
    settings = LatencySettings(levels, requests, prompt_tokens or lengths[0], output_tokens or lengths[1])
    profiles = measure(
        named,
        settings,
        output,
        progress=progress,
        dtype=dtype,
        device=device,
        backend=backend,
        limits=Limits(ttft_limit_ms, tpot_limit_ms),
        rates=tuple(dict.fromkeys(rate or ())),
    )
    show({profile.variant: profile for profile in profiles}, as_json, text(profiles))
    for profile in profiles:
        if not any(level.requests for level in profile.levels):
            raise CapacityError(f"{profile.variant}: every request failed, the first with: {profile.levels[0].failure}")


def _check_rates(rates: list[float]) -> None:
    for rate in rates:
        if not 0.0 < rate < float("inf"):
            raise UsageError(f"--rate {rate:g}: requests per second must be a number above 0")


def _named(variants: list[str]) -> dict[str, Path]:
    """A name for each variant: its folder's own, made distinct where two are alike."""
    from qtool.models.locate import locate

    named: dict[str, Path] = {}
    for variant in variants:
        url = variant.startswith(("http://", "https://"))
        folder = Path(variant) if url else locate(variant)
        name = variant.partition("://")[2].replace("/", "-").strip("-") if url else folder.name
        parent = folder.parent.name
        name = name if name not in named else f"{parent}-{name}"
        while name in named:
            name += "-again"
        named[name] = folder
    return named


def _refuse_other_bases(named: dict[str, Path]) -> None:
    """Raises MismatchError where a variant would be timed beside a model that is not of its base."""
    from qtool.models.checkpoint import identify, is_quantized, read_config
    from qtool.models.locate import is_url
    from qtool.records.model import same_base
    from qtool.records.variant import Variant
    from qtool.store.codec import read_json

    variants = {name: folder for name, folder in named.items() if (folder / "variant.json").is_file()}
    bases = {name: read_json(Variant, folder / "variant.json").base for name, folder in variants.items()}
    for name, folder in named.items():
        if bases and name not in variants and not is_url(folder) and not is_quantized(read_config(folder)):
            bases[name] = identify(folder)
    first = next(iter(bases), "")
    for name, base in bases.items():
        if not same_base(base, bases[first]):
            raise MismatchError(
                f"{first} and {name} are of different base models ({bases[first].name} and {base.name}); "
                "time a variant beside the base it was made from"
            )


def _task_lengths(task: str, named: dict[str, Path]) -> tuple[int, int]:
    """Median tokens of the task's prompts and of its reference answers, told by the first folder's tokenizer."""
    import statistics

    from qtool.evaluate.language import load_language
    from qtool.evaluate.prompts import questions
    from qtool.evaluate.tasks import load_items, load_shots, load_task
    from qtool.models.locate import is_url
    from qtool.models.tokenizer import has_chat_template

    folder = next((folder for folder in named.values() if not is_url(folder)), None)
    if folder is None:
        raise UsageError("--task needs a tokenizer, and a server gives none; give --prompt-tokens and --output-tokens")
    asked = load_task(task)
    items = load_items(asked, count=_TASK_ITEMS)
    language = load_language(folder)
    chat = language if has_chat_template(folder) else None  # asked as `qtool eval` and the server would ask it
    prompts = [len(language.encode(one.prompt)) for one in questions(asked, items, shots=load_shots(asked), chat=chat)]
    answers = [len(language.encode(item.answer, bos=False)) for item in items]
    return round(statistics.median(prompts)), max(round(statistics.median(answers)), 1)
