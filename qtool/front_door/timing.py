"""`qtool.time`: how fast variants answer, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from qtool.front_door.paths import ModelLike, PathLike, model_place
from qtool.front_door.threads import on_threads
from qtool.progress import chosen_progress
from qtool.records.latency import LatencyProfile
from qtool.records.place import Place
from qtool.records.presentation import Presented
from qtool.store import layout

DEFAULT_CONCURRENCY = (1, 8)
SWEEP_CONCURRENCY = (1, 2, 4, 8, 10, 16, 32, 50, 100)
_DEFAULT_LENGTHS = (64, 32)
_TASK_ITEMS = 100


@dataclass(frozen=True, slots=True, repr=False)
class Timings(Presented):
    """The profiles of all variants that were timed side by side, in the order given."""

    SHOWN: ClassVar[tuple[str, ...]] = ("names",)

    profiles: tuple[LatencyProfile, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What each profile is called."""
        return tuple(profile.variant for profile in self.profiles)

    def table(self) -> str:
        """All profiles, and each one beside the first."""
        from qtool.latency.summary import text

        return text(self.profiles)


def time(
    variants: Sequence[ModelLike],
    output: PathLike,
    *,
    concurrency: Sequence[int] = (),
    rates: Sequence[float] = (),
    requests: int = 24,
    sweep: bool = False,
    prompt_tokens: int | None = None,
    output_tokens: int | None = None,
    task: str | None = None,
    ttft_limit_ms: float = 2000.0,
    tpot_limit_ms: float = 100.0,
    dtype: str = "auto",
    device: str = "auto",
    backend: str = "qtool",
    threads: int | None = None,
    quiet: bool = False,
) -> Timings:
    """Times `variants` side by side: first token, later tokens, end to end, throughput, cold start and memory; raw
    samples lie in the folder `output`. Raises CapacityError where every request of a variant failed."""
    found = time_variants(
        variants,
        output,
        concurrency=concurrency,
        rates=rates,
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
    refuse_failed(found)
    return found


@on_threads
def time_variants(
    variants: Sequence[ModelLike],
    output: PathLike,
    *,
    concurrency: Sequence[int],
    rates: Sequence[float],
    requests: int,
    sweep: bool,
    prompt_tokens: int | None,
    output_tokens: int | None,
    task: str | None,
    ttft_limit_ms: float,
    tpot_limit_ms: float,
    dtype: str,
    device: str,
    backend: str,
    threads: int | None,
    quiet: bool,
) -> Timings:
    """What `time` returns, also where every request of a variant failed."""
    from qtool.latency.stage import measure
    from qtool.latency.timing import Limits
    from qtool.records.plan import LatencySettings

    _check_rates(rates)
    named = _named(variants)
    levels = SWEEP_CONCURRENCY if sweep else tuple(dict.fromkeys(concurrency or DEFAULT_CONCURRENCY))
    lengths = task_lengths(task, named) if task else _DEFAULT_LENGTHS
    _refuse_other_bases(named)
    return Timings(
        measure(
            named,
            LatencySettings(levels, requests, prompt_tokens or lengths[0], output_tokens or lengths[1]),
            Path(output),
            progress=chosen_progress(quiet),
            dtype=dtype,
            device=device,
            backend=backend,
            limits=Limits(ttft_limit_ms, tpot_limit_ms),
            rates=tuple(dict.fromkeys(rates)),
        )
    )


def refuse_failed(found: Timings) -> None:
    """Raises CapacityError where every request of a variant failed."""
    from qtool.errors import CapacityError

    for profile in found.profiles:
        if not any(level.requests for level in profile.levels):
            raise CapacityError(f"{profile.variant}: every request failed, the first with: {profile.levels[0].failure}")


def _check_rates(rates: Sequence[float]) -> None:
    from qtool.errors import UsageError

    for rate in rates:
        if not 0.0 < rate < float("inf"):
            raise UsageError(f"--rate {rate:g}: requests per second must be a number above 0")


def _named(variants: Sequence[ModelLike]) -> dict[str, Place]:
    """A name for each variant: its own, made distinct where two are alike."""
    named: dict[str, Place] = {}
    for place in map(model_place, variants):
        name = place.name
        if name in named and isinstance(place, Path):
            name = f"{place.parent.name}-{name}"
        while name in named:
            name += "-again"
        named[name] = place
    return named


def _refuse_other_bases(named: Mapping[str, Place]) -> None:
    """Raises MismatchError where a variant would be timed beside a model that is not of its base."""
    from qtool.errors import MismatchError
    from qtool.models.checkpoint import is_quantized, read_config
    from qtool.models.identity import identify
    from qtool.records.model import same_base
    from qtool.records.variant import Variant
    from qtool.store.codec import read_json

    folders = {name: place for name, place in named.items() if isinstance(place, Path)}
    variants = {name: folder for name, folder in folders.items() if (folder / layout.VARIANT).is_file()}
    bases = {name: read_json(Variant, folder / layout.VARIANT).base for name, folder in variants.items()}
    for name, folder in folders.items():
        if bases and name not in variants and not is_quantized(read_config(folder)):
            bases[name] = identify(folder)
    first = next((name for name in named if name in bases), "")
    for name, base in bases.items():
        if not same_base(base, bases[first]):
            raise MismatchError(
                f"{first} and {name} are of different base models ({bases[first].name} and {base.name}); "
                "time a variant beside the base it was made from"
            )


def task_lengths(task: str, named: Mapping[str, Place]) -> tuple[int, int]:
    """Median tokens of the task's prompts and of its reference answers, told by the first folder's tokenizer."""
    import statistics

    from qtool.errors import UsageError
    from qtool.evaluate.asking.language import load_language
    from qtool.evaluate.items.prompts import questions
    from qtool.evaluate.items.tasks import load_items, load_shots, load_task
    from qtool.models.tokenizer import has_chat_template

    folder = next((place for place in named.values() if isinstance(place, Path)), None)
    if folder is None:
        raise UsageError("--task needs a tokenizer, and a server gives none; give --prompt-tokens and --output-tokens")
    asked = load_task(task)
    items = load_items(asked, count=_TASK_ITEMS)
    language = load_language(folder)
    chat = language if has_chat_template(folder) else None  # asked as `qtool eval` and the server would ask it
    prompts = [len(language.encode(one.prompt)) for one in questions(asked, items, shots=load_shots(asked), chat=chat)]
    answers = [len(language.encode(item.answer, bos=False)) for item in items]
    return round(statistics.median(prompts)), max(round(statistics.median(answers)), 1)
