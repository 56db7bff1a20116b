"""Sensitivity by task score: every layer rounded alone, and kept alone, asked the items of a task.

It uses quantize and evaluate, which never import each other, so it lies beside pipeline/stages.py. Each trial is a
variant
that is made, evaluated and removed again; its answers stay, so a killed run goes on where it was.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtool import __version__
from qtool.pipeline.plan import BASELINE
from qtool.pipeline.run import Run
from qtool.progress import Progress, Silent
from qtool.quantize.request.sensitivity import measure
from qtool.records.evaluation import Evaluation, Interval
from qtool.records.sensitivity import Sensitivity, UnitSensitivity
from qtool.records.variant import Recipe
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.run_directory import locked, write_record

_ALL = "all"


@dataclass(frozen=True, slots=True)
class TaskChange:
    """Score of one trial and its paired difference to another: both in the task's metric, the interval as of the ship
    test (two one-sided 95 % bounds). `p_worse` is one-sided and not corrected for the number of trials."""

    score: float
    difference: float
    interval: Interval
    p_worse: float


@dataclass(frozen=True, slots=True)
class UnitTaskScore:
    """`alone`: only these layers are rounded, against the base. `kept`: all layers but these, against all rounded."""

    layers: tuple[str, ...]
    alone: TaskChange
    kept: TaskChange


@dataclass(frozen=True, slots=True)
class TaskSensitivity:
    """KL and the score on `items` items of `task` for every unit of a model; `all` is every layer rounded, against the
    base."""

    format_version: int
    kl: Sensitivity
    task: str
    items: int
    base_score: float
    all: TaskChange
    units: tuple[UnitTaskScore, ...]


@dataclass(frozen=True, slots=True)
class TaskTrials:
    """What to measure: `items` items of `task` on every unit that `recipe` rounds, in the folder `folder`."""

    model: Path
    recipe: Recipe
    task: str
    items: int | None
    folder: Path


def measure_task(trials: TaskTrials, rows: tuple[tuple[int, ...], ...], *, progress: Progress) -> TaskSensitivity:
    """The sensitivity of every unit in KL over `rows` and in task score; writes `sensitivity.json` into the folder.

    Raises whatever quantize and evaluate raise; the same call then continues.
    """
    from qtool.evaluate.items.tasks import load_task
    from qtool.evaluate.stage import ask_for
    from qtool.models.checkpoint import weights_digest
    from qtool.quantize.request import recipe

    asked = ask_for(load_task(trials.task), count=trials.items)
    with locked(trials.folder.parent / f".{trials.folder.name}.sensitivity.lock", holds=str(trials.folder)):
        silent = Run(trials.model, weights_digest(trials.model), trials.folder, Silent())
        run = _Trials(silent, trials.recipe, asked, progress)
        kl = run.kl(rows)
        every = tuple(layer for unit in kl.units for layer in unit.layers)
        with progress.track(f"asking {trials.task}", 2 * len(kl.units) + 2, "trials") as advance:
            base = run.ask(BASELINE, recipe.BASELINE, None, advance)
            whole = run.ask(_ALL, kl.recipe, BASELINE, advance)
            units = tuple(_unit(run, kl, index, every, advance) for index in range(len(kl.units)))
        found = TaskSensitivity(
            format_version=1,
            kl=kl,
            task=trials.task,
            items=base.score.items,
            base_score=base.score.value,
            all=_change(whole),
            units=units,
        )
        write_record(trials.folder / layout.SENSITIVITY, found)
    return found


def task_text(found: TaskSensitivity) -> str:
    """A table, the unit that costs most alone first."""
    by_layers: dict[tuple[str, ...], UnitSensitivity] = {unit.layers: unit for unit in found.kl.units}
    width = max(len(", ".join(unit.layers)) for unit in found.units)
    lines = [
        f"{found.kl.model.name} under {found.kl.recipe.scheme}: {found.task} {100 * found.base_score:.1f} % in the "
        f"base, {_points(found.all)} points with every layer rounded (n {found.items})",
        "points: alone against the base, kept against all rounded; intervals 90 %, each by itself: among many layers "
        "some lie beside zero by chance",
        f"{'layers':<{width}} {'KL alone':>9} {'KL without':>10}  {'alone':<22} {'kept':<22}",
    ]
    for unit in sorted(found.units, key=lambda unit: unit.alone.difference):
        kl = by_layers[unit.layers]
        names = ", ".join(unit.layers)
        lines.append(
            f"{names:<{width}} {kl.kl_alone:>9.3g} {kl.kl_without:>10.3g}  {_points(unit.alone):<22} "
            f"{_points(unit.kept):<22}".rstrip()
        )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Trials:
    """The trials while they are carried out; what is done is told from the stage log of the folder."""

    run: Run
    recipe: Recipe
    asked: Any
    progress: Progress

    def kl(self, rows: tuple[tuple[int, ...], ...]) -> Sensitivity:
        path = self.run.folder / "kl.json"
        inputs = {"qtool": __version__, **self._described(), "rows": rows}

        def work() -> None:
            kept = path.with_suffix(".trials.jsonl")
            write_record(path, measure(self.run.model, self.recipe, rows, progress=self.progress, kept=kept))

        self.run.stage("kl", inputs, path, work)
        return read_json(Sensitivity, path)

    def ask(self, name: str, recipe: Recipe, against: str | None, advance: Any) -> Evaluation:
        """The evaluation of the variant by `recipe`, whose folder is removed once it has answered."""
        from qtool.evaluate.stage import evaluate_asked
        from qtool.quantize.stage import quantize

        parts, silent = self.run.parts, self.run.progress
        folder, output = parts.variant(name), parts.evaluations(name)
        items = [item.id for item in self.asked.items]
        inputs = {"qtool": __version__, **self._described(), "trial": recipe, "items": items, "task": self.asked.task}
        path = output / f"{self.asked.task.name}.json"

        def work() -> None:
            quantize(
                self.run.model,
                recipe,
                folder,
                name=name,
                calibration=None,
                progress=silent,
                replace=True,
                whole_check=False,
            )
            baseline = None if against is None else parts.evaluations(against)
            evaluate_asked(folder, (self.asked,), output, baseline=baseline, progress=silent)

        self.run.stage(name, inputs, path, work)
        shutil.rmtree(folder, ignore_errors=True)
        advance(1)
        return read_json(Evaluation, path)

    def _described(self) -> dict[str, object]:
        return {"model": self.run.weights_digest, "recipe": self.recipe}


def _unit(run: _Trials, kl: Sensitivity, index: int, every: tuple[str, ...], advance: Any) -> UnitTaskScore:
    layers = kl.units[index].layers
    others = tuple((layer, "base") for layer in every if layer not in layers)
    alone = run.ask(f"alone-{index}", replace(kl.recipe, overrides=others), BASELINE, advance)
    kept = tuple((layer, "base") for layer in layers)
    without = run.ask(f"kept-{index}", replace(kl.recipe, overrides=kept), _ALL, advance)
    return UnitTaskScore(layers, _change(alone), _change(without))


def _change(evaluation: Evaluation) -> TaskChange:
    found = evaluation.comparison
    assert found is not None  # only the baseline has none
    return TaskChange(evaluation.score.value, found.difference, found.interval, found.p_worse)


def _points(change: TaskChange) -> str:
    low, high = 100 * change.interval.low, 100 * change.interval.high
    return f"{100 * change.difference:+.1f} [{low:+.1f}, {high:+.1f}]"
