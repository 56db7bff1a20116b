"""`qtool.sensitivity`: which layers bear fewer bits, and which do not."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from qtool.front_door.paths import PathLike, optional_path
from qtool.front_door.threads import on_threads
from qtool.progress import chosen_progress
from qtool.records.presentation import Presented
from qtool.records.variant import Recipe

if TYPE_CHECKING:
    from qtool.pipeline.sensitivity import TaskSensitivity
    from qtool.records.sensitivity import Sensitivity


@dataclass(frozen=True, slots=True, repr=False)
class LayerSensitivity(Presented):
    """What each layer costs when it alone is rounded: in KL, with a task also in its score. With a budget, `overrides`
    are the layers to keep in more bits for that size, (layer, scheme) each."""

    SHOWN: ClassVar[tuple[str, ...]] = ("kl.model.name", "kl.recipe.scheme", "overrides")

    kl: "Sensitivity"
    task: "TaskSensitivity | None"
    overrides: tuple[tuple[str, str], ...] | None

    def table(self) -> str:
        """A line a layer, the one that costs most alone first."""
        from qtool.pipeline.sensitivity import task_text
        from qtool.quantize.request.sensitivity import sensitivity_text

        text = sensitivity_text(self.kl) if self.task is None else task_text(self.task)
        if self.overrides is None:
            return text
        named = " ".join(f"--override {layer}={scheme}" for layer, scheme in self.overrides)
        return f"{text}\n\nwithin the budget: {named or 'no override'}"


@on_threads
def sensitivity(
    model: PathLike,
    *,
    calibration: PathLike,
    scheme: str = "w4a16",
    group_size: int = -1,
    output: PathLike | None = None,
    budget: str | None = None,
    task: str | None = None,
    items: int | None = None,
    folder: PathLike | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> LayerSensitivity:
    """Scores each layer by what the model loses when it alone is rounded, and when it alone is kept."""
    from qtool.errors import UsageError
    from qtool.models.locate import locate
    from qtool.quantize.request.mixed import choose_overrides
    from qtool.quantize.request.prepare import measuring_rows
    from qtool.quantize.request.sensitivity import measure
    from qtool.store.codec import decode
    from qtool.store.run_directory import locked, write_record

    if task is None and items is not None:
        raise UsageError("--items goes with --task NAME")
    base = locate(str(model))
    recipe = decode(Recipe, {"scheme": scheme, "method": "rtn", "group_size": group_size}, source="qtool sensitivity")
    rows, progress = measuring_rows(base, Path(calibration)), chosen_progress(quiet)
    place = optional_path(folder) or Path("sensitivity") / base.name
    scored: TaskSensitivity | None = None
    if task is None:
        with locked(place.parent / f".{place.name}.sensitivity.lock", holds=str(place)):
            found = measure(base, recipe, rows, progress=progress, kept=place / "kl.trials.jsonl")
    else:
        from qtool.pipeline.sensitivity import TaskTrials, measure_task

        scored = measure_task(TaskTrials(base, recipe, task, items, place), rows, progress=progress)
        found = scored.kl
    if output is not None:
        write_record(Path(output), scored or found)
    return LayerSensitivity(found, scored, None if budget is None else tuple(choose_overrides(base, found, budget)))
