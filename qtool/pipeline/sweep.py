"""The sweep: one calibration, every observer as a variant, every task on each, and which layers hurt.

It orders stages as pipeline/stages.py does, so it lies beside it: calibrate, quantize and evaluate never import each
other.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtool import __version__
from qtool.errors import UsageError
from qtool.pipeline.plan import BASELINE
from qtool.pipeline.run import Run, make
from qtool.progress import Progress
from qtool.records.calibration import Calibration
from qtool.records.evaluation import Evaluation
from qtool.records.plan import CalibrationSettings
from qtool.records.sweep import LayerBlame, Sweep, SweepCell, SweepRow
from qtool.records.variant import Recipe
from qtool.store import layout
from qtool.store.ranges_file import read_calibration
from qtool.store.run_directory import locked, write_record, write_text

OBSERVERS = (
    "absmax:token",
    "absmax",
    "percentile:99.999",
    "percentile:99.99",
    "percentile:99.9",
    "percentile:99.5",
    "mse",
    "entropy",
    "fixed:8",
)


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What to sweep: all observers of `calibration`, `items` items of each task, `blamed` inputs tried apart."""

    calibration: CalibrationSettings
    tasks: tuple[str, ...]
    scheme: str = "w8a8"
    items: int | None = None
    blamed: int = 3


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One sweep while it is carried out."""

    run: Run
    asked: tuple[Any, ...]
    settings: SweepSettings

    def evaluate(self, name: str, recipe: Recipe, tasks: tuple[str, ...] | None = None) -> tuple[Evaluation, ...]:
        """Evaluations of the variant `name` on the tasks, each against the baseline; answers given before are kept."""
        from qtool.evaluate.stage import evaluate_asked

        make(self.run, name, recipe)
        asked = tuple(each for each in self.asked if tasks is None or each.task.name in tasks)
        parts = self.run.parts
        baseline = None if name == BASELINE else parts.evaluations(BASELINE)
        return evaluate_asked(
            parts.variant(name), asked, parts.evaluations(name), baseline=baseline, progress=self.run.progress
        )


def sweep(
    model: Path,
    settings: SweepSettings,
    folder: Path,
    *,
    progress: Progress,
    sets_dir: Path | None = None,
    evals_dir: Path | None = None,
) -> Sweep:
    """Carries out the sweep in `folder`, writes `sweep.json` and `sweep.md` there; a killed one goes on where it was.

    Raises UsageError for a scheme without static activations, and whatever the stages raise.
    """
    from qtool.evaluate.items.tasks import load_task
    from qtool.evaluate.stage import ask_for
    from qtool.formats.schemes import SCHEMES
    from qtool.models.checkpoint import weights_digest
    from qtool.quantize.request import recipe

    if not (settings.scheme in SCHEMES and SCHEMES[settings.scheme].rounds_inputs):
        raise UsageError(f"scheme {settings.scheme!r} has no activation ranges to sweep; use w8a8 or fp8")
    if not settings.tasks:
        raise UsageError("no task is named; name at least one, for example --task arithmetic")
    asked = tuple(ask_for(load_task(name, evals_dir=evals_dir), count=settings.items) for name in settings.tasks)
    with locked(folder.parent / f".{folder.name}.sweep.lock", holds=str(folder)):
        state = _Sweep(Run(model, weights_digest(model), folder, progress), asked, settings)
        calibration = _calibrate(state, sets_dir)
        baseline = state.evaluate(BASELINE, recipe.BASELINE)
        rows = tuple(_row(state, observer, calibration) for observer in calibration.observers)
        found = Sweep(
            format_version=1,
            model=calibration.model.name,
            scheme=settings.scheme,
            set_name=calibration.set_name,
            sequences=calibration.sequences,
            baseline=tuple((evaluation.task, evaluation.score) for evaluation in baseline),
            rows=rows,
            blame=tuple(_blame(state, rows, calibration)),
            qtool_version=__version__,
        )
        write_text(folder / layout.SWEEP_TEXT, sweep_text(found))
        write_record(folder / layout.SWEEP, found)
    return found


def sweep_text(found: Sweep) -> str:
    """The sweep as a markdown table: accuracy, change in points with its interval, verdict."""
    tasks = [task for task, _ in found.baseline]
    lines = [
        f"{found.model}, {found.scheme}, set {found.set_name!r} ({found.sequences} sequences)",
        "",
        "| range | most energy clipped | " + " | ".join(tasks) + " |",
        "|" + "---|" * (2 + len(tasks)),
        "| baseline | | "
        + " | ".join(f"{100 * score.value:.1f} (n={score.items})" for _, score in found.baseline)
        + " |",
    ]
    for row in found.rows:
        kind = " (per token)" if row.dynamic else "" if row.calibrated else " (uncalibrated)"
        clipped = "" if row.clipped_energy is None else f"{row.clipped_energy:.1e}"
        lines.append(f"| {row.observer}{kind} | {clipped} | " + " | ".join(map(_cell_text, row.cells)) + " |")
    for blame in found.blame:
        lines += [
            "",
            f"{blame.observer} on {blame.task}: {100 * blame.difference:+.1f} points; "
            f"{100 * blame.without:+.1f} [{100 * blame.interval.low:+.1f}, {100 * blame.interval.high:+.1f}] "
            f"with {', '.join(blame.layers)} left in 16 bits",
        ]
    return "\n".join(lines) + "\n"


def _cell_text(cell: SweepCell) -> str:
    low, high = 100 * cell.interval.low, 100 * cell.interval.high
    return f"{100 * cell.score.value:.1f} ({100 * cell.difference:+.1f} [{low:+.1f}, {high:+.1f}]) {cell.verdict}"


def _calibrate(state: _Sweep, sets_dir: Path | None) -> Calibration:
    from qtool.calibrate.stage import calibrate

    run, settings = state.run, state.settings.calibration
    output = run.parts.calibration
    run.stage(
        "calibrate",
        {"model": run.weights_digest, "settings": settings},
        output / layout.CALIBRATION,
        lambda: calibrate(run.model, settings, output, progress=run.progress, sets_dir=sets_dir, replace=True),
    )
    return read_calibration(output)


def _recipe(scheme: str, observer: str, calibration: Calibration) -> Recipe:
    dynamic = any(entry.dynamic for entry in calibration.ranges if entry.observer == observer)
    recipe = Recipe(scheme=scheme, method="rtn", activations="dynamic")  # type: ignore[arg-type]
    return recipe if dynamic else replace(recipe, activations="static", observer=observer)


def _variant_name(observer: str) -> str:
    return observer.replace(":", "-")


def _row(state: _Sweep, observer: str, calibration: Calibration) -> SweepRow:
    recipe = _recipe(state.settings.scheme, observer, calibration)
    evaluations = state.evaluate(_variant_name(observer), recipe)
    clipped = _clipped(calibration, observer)
    worst = max(clipped, key=lambda name: clipped[name], default="")
    return SweepRow(
        observer=observer,
        dynamic=recipe.activations == "dynamic",
        calibrated=not observer.startswith("fixed"),
        clipped_energy=clipped.get(worst),
        input=worst,
        cells=tuple(_cell(evaluation) for evaluation in evaluations),
    )


def _cell(evaluation: Evaluation) -> SweepCell:
    comparison = evaluation.comparison
    assert comparison is not None  # only the baseline has none
    return SweepCell(evaluation.task, evaluation.score, comparison.difference, comparison.interval, comparison.verdict)


def _clipped(calibration: Calibration, observer: str) -> dict[str, float]:
    """Held-out energy that `observer` cuts off, at worst of all tags, by input."""
    assert calibration.certificate is not None
    return {
        layer.input: max((clip.clipped_energy for clip in found.held_out), default=0.0)
        for layer in calibration.certificate.layers
        for found in layer.ranges
        if found.observer == observer
    }


def _blame(state: _Sweep, rows: tuple[SweepRow, ...], calibration: Calibration) -> Iterator[LayerBlame]:
    """For the observer and task that lost most: the inputs it clips most, each left unquantized in turn."""
    assert calibration.certificate is not None
    failed = [
        (row, cell)
        for row in rows
        if row.calibrated and not row.dynamic
        for cell in row.cells
        if cell.verdict == "FAIL"
    ]
    if not failed or not state.settings.blamed:
        return
    row, cell = min(failed, key=lambda pair: pair[1].difference)
    recipe = _recipe(state.settings.scheme, row.observer, calibration)
    clipped = _clipped(calibration, row.observer)
    readers = {layer.input: layer.layers for layer in calibration.certificate.layers}
    quantized = [name for name in clipped if not set(readers[name]) & set(recipe.skip)]
    for name in sorted(quantized, key=lambda name: -clipped[name])[: state.settings.blamed]:
        without = replace(recipe, skip=(*recipe.skip, *readers[name]))
        variant = f"{_variant_name(row.observer)}-without-{name}"
        (evaluation,) = state.evaluate(variant, without, (cell.task,))
        comparison = evaluation.comparison
        assert comparison is not None
        yield LayerBlame(
            row.observer, cell.task, readers[name], cell.difference, comparison.difference, comparison.interval
        )
