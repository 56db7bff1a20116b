"""`qtool.evaluate` and `qtool.compare`: verdicts, with a model and without one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.front_door.margins import margins
from qtool.front_door.paths import ModelLike, PathLike, model_place, optional_path
from qtool.front_door.threads import on_threads
from qtool.progress import chosen_progress

if TYPE_CHECKING:
    from qtool.evaluate.session import Findings
    from qtool.evaluate.verdicts.compare import Compared


@on_threads
def evaluate(
    variant: ModelLike,
    *,
    tasks: Sequence[str],
    baseline: ModelLike | None = None,
    items: int | None = None,
    margin: float | str | None = None,
    tiers: Mapping[str, str] | None = None,
    base_scores: Mapping[str, float] | None = None,
    repeats: int | None = None,
    temperature: float | None = None,
    data: str | None = None,
    evals_dir: PathLike | None = None,
    until_decided: int | None = None,
    chat: bool | None = None,
    concurrency: int = 32,
    dtype: str = "auto",
    device: str = "auto",
    backend: str = "qtool",
    tokenizer: PathLike | None = None,
    generate_all: bool = False,
    allow_unverified: bool = False,
    unsafe_code: bool = False,
    output: PathLike | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> "Findings":
    """Asks `variant` (a folder, a reference name, a hub id or a server's URL) every item of `tasks` and scores it; with
    a baseline, `overall` of the result is PASS, FAIL or UNDECIDED."""
    from qtool.evaluate.asking.subject import Settings
    from qtool.evaluate.session import Findings, Order, fulfil
    from qtool.evaluate.terminal_text import render
    from qtool.models.locate import locate
    from qtool.records.presentation import present

    present(Findings, render)

    points, percent = margins(margin)
    order = Order(
        model=model_place(variant),
        tasks=tuple(tasks),
        output=optional_path(output),
        baseline=None if baseline is None else model_place(baseline),
        limit=items,
        margin_points=points,
        margin_percent=percent,
        tiers=tiers or {},
        base_scores=base_scores or {},
        repeats=repeats,
        temperature=temperature,
        data=data,
        evals_dir=optional_path(evals_dir),
        until_decided=until_decided,
        unsafe_code=unsafe_code,
        settings=Settings(
            chat=chat,
            in_flight=concurrency,
            dtype=dtype,
            device=device,
            backend=backend,
            forcing=not generate_all,
            tokenizer=None if tokenizer is None else locate(str(tokenizer)),
            allow_unverified=allow_unverified,
        ),
    )
    return fulfil(order, chosen_progress(quiet))


def compare(
    baseline: PathLike,
    variant: PathLike,
    *,
    margin: float | str | None = None,
    metric: str | None = None,
    filter: str | None = None,
    export: str | None = None,
    output: PathLike = "exported",
) -> "Compared":
    """Compares two finished evaluations, ours or those of lm-eval, nel or inspect_ai, item by item; with `export`, ours
    are also written to `output` in the form of one of these."""
    from qtool.evaluate.verdicts.compare import compare as run

    points, percent = margins(margin)
    found = run(
        Path(baseline), Path(variant), margin_points=points, metric=metric, log_filter=filter, margin_percent=percent
    )
    if export is not None:
        from qtool.evaluate.export import export as write

        for side, folder in (("baseline", baseline), ("variant", variant)):
            write(Path(folder), export, Path(output) / side)
    return found
