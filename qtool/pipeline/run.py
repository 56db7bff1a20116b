"""One run while it is carried out: what every order of stages needs to make a variant and to ask it the tasks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from qtool.pipeline.plan import BASELINE
from qtool.progress import Progress
from qtool.records.evaluation import Evaluation
from qtool.records.model import ModelIdentity
from qtool.records.plan import Plan, PlannedTask
from qtool.records.task import TaskSpec
from qtool.records.variant import Recipe
from qtool.store.codec import read_json
from qtool.store.digest import file_digest, fingerprint
from qtool.store.stage_log import changed_file, is_done, mark_done


@dataclass(frozen=True, slots=True)
class Run:
    """One run while it is carried out."""

    plan: Plan
    folder: Path
    model: Path
    identity: ModelIdentity
    progress: Progress

    def stage(
        self, name: str, inputs: object, manifest: Path, work: Callable[[], object], *, also: Iterable[Path] = ()
    ) -> None:
        """Does `work` unless `name` was done from equal `inputs` and its files are as they were; says which of the two.

        The files are those that `manifest` speaks for, and `also`.
        """
        if not self.is_done(name, inputs):
            work()
            self.mark_done(name, inputs, manifest, also=also)

    def is_done(self, name: str, inputs: object) -> bool:
        """Whether stage `name` was done from equal `inputs` and its files are as it left them; says which."""
        if is_done(self.folder, name, inputs):
            self.progress.note(f"{name}: unchanged, skipped")
            return True
        if changed := changed_file(self.folder, name, inputs):
            self.progress.note(f"{name}: {changed} is not what this stage wrote; it is made again")
        return False

    def mark_done(self, name: str, inputs: object, manifest: Path, *, also: Iterable[Path] = ()) -> None:
        """Records that stage `name` ended well and wrote `manifest` and the files that belong to it."""
        mark_done(self.folder, name, inputs, manifest, also=also)

    def variant(self, name: str) -> Path:
        """The folder of variant `name`."""
        return self.folder / "variants" / name

    def evaluations(self, name: str) -> Path:
        """The folder of the evaluations of variant `name`."""
        return self.folder / "evaluations" / name

    @property
    def calibration(self) -> Path:
        """The folder of the run's calibration."""
        return self.folder / "calibration"

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The plan's tasks with what the plan leaves open filled in from their files."""
        return tuple(task_of(self.plan, task) for task in self.plan.tasks)


def task_of(plan: Plan, task: PlannedTask) -> TaskSpec:
    """A task as the plan asks for it."""
    from qtool.evaluate.items.tasks import load_task

    spec = load_task(task.name, evals_dir=Path(plan.evals_dir) if plan.evals_dir else None)
    return replace(
        spec,
        margin_points=spec.margin_points if task.margin_points is None else task.margin_points,
        critical=spec.critical if task.critical is None else task.critical,
        items=spec.items if task.items is None else task.items,
        data=spec.data if task.data is None else task.data,
    )


def make(run: Run, name: str, recipe: Recipe) -> None:
    """Makes the variant `name`, unless an equal one is there."""
    from qtool.quantize.stage import quantize

    used = None if name == BASELINE else run.calibration
    inputs = {
        "model": run.identity.weights_digest,
        "recipe": recipe,
        "calibration": None if used is None else file_digest(used / "calibration.json"),
    }
    output = run.variant(name)
    run.stage(
        f"quantize:{name}",
        inputs,
        output / "variant.json",
        lambda: quantize(run.model, recipe, output, name=name, calibration=used, progress=run.progress, replace=True),
    )


def ask(run: Run, name: str, *, level: float | None = None) -> tuple[Evaluation, ...]:
    """Puts every task to the variant `name`, unless that was done, and compares it with the baseline.

    `level` is the one-sided level of the ship test where it is not the usual one.
    """
    from qtool.evaluate.asking.subject import Settings
    from qtool.evaluate.stage import ask_for, evaluate_asked

    tasks, output = {task.name: task for task in run.tasks}, run.evaluations(name)
    inputs = {task: _asking_inputs(run, name, spec, level) for task, spec in tasks.items()}
    wanted = [task for task in tasks if not run.is_done(f"evaluate:{name}:{task}", inputs[task])]
    if wanted:
        asked = [ask_for(tasks[task]) for task in wanted]
        evaluate_asked(
            run.variant(name),
            [each if level is None else replace(each, level=level) for each in asked],
            output,
            baseline=None if name == BASELINE else run.evaluations(BASELINE),
            progress=run.progress,
            settings=Settings(seed=run.plan.seed, dtype=run.plan.dtype, chat=run.plan.chat),
        )
    for task in wanted:
        run.mark_done(f"evaluate:{name}:{task}", inputs[task], output / f"{task}.json")
    return tuple(read_json(Evaluation, output / f"{task}.json") for task in tasks)


def _asking_inputs(run: Run, variant: str, task: TaskSpec, level: float | None) -> dict[str, object]:
    baseline = run.evaluations(BASELINE) / f"{task.name}.json"
    inputs: dict[str, object] = {
        "variant": file_digest(run.variant(variant) / "variant.json"),
        "task": task,
        "data": None if task.data is None else fingerprint(Path(task.data)),
        "seed": run.plan.seed,
        "dtype": run.plan.dtype,
        "chat": run.plan.chat,
        "baseline": None if variant == BASELINE else file_digest(baseline),
    }
    return inputs if level is None else {**inputs, "level": level}
