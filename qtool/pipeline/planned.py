"""A run by a plan: the plan's tasks put to its variants."""

from dataclasses import dataclass, replace
from pathlib import Path

from qtool.pipeline.plan import BASELINE, with_plan
from qtool.pipeline.run import Run
from qtool.records.evaluation import Evaluation
from qtool.records.model import ModelIdentity
from qtool.records.plan import Plan, PlannedTask
from qtool.records.task import TaskSpec
from qtool.store.codec import read_json
from qtool.store.digest import file_digest, fingerprint
from qtool.store.layout import VARIANT


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run, the plan it follows and the model that the plan names."""

    run: Run
    plan: Plan
    identity: ModelIdentity

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The plan's tasks with what the plan leaves open filled in from their files."""
        return tuple(task_of(self.plan, task) for task in self.plan.tasks)


def task_of(plan: Plan, task: PlannedTask) -> TaskSpec:
    """A task as the plan asks for it."""
    from qtool.evaluate.items.tasks import load_task

    spec = load_task(task.name, evals_dir=Path(plan.evals_dir) if plan.evals_dir else None)
    return with_plan(spec, task)


def ask(planned: PlannedRun, name: str, *, level: float | None = None) -> tuple[Evaluation, ...]:
    """Puts every task to the variant `name`, unless that was done, and compares it with the baseline.

    `level` is the one-sided level of the ship test where it is not the usual one.
    """
    from qtool.evaluate.asking.subject import Settings
    from qtool.evaluate.stage import ask_for, evaluate_asked

    run = planned.run
    tasks, output = {task.name: task for task in planned.tasks}, run.parts.evaluations(name)
    inputs = {task: _asking_inputs(planned, name, spec, level) for task, spec in tasks.items()}
    wanted = [task for task in tasks if not run.is_done(f"evaluate:{name}:{task}", inputs[task])]
    if wanted:
        asked = [ask_for(tasks[task]) for task in wanted]
        evaluate_asked(
            run.parts.variant(name),
            [each if level is None else replace(each, level=level) for each in asked],
            output,
            baseline=None if name == BASELINE else run.parts.evaluations(BASELINE),
            progress=run.progress,
            settings=Settings(seed=planned.plan.seed, dtype=planned.plan.dtype, chat=planned.plan.chat),
        )
    for task in wanted:
        run.mark_done(f"evaluate:{name}:{task}", inputs[task], output / f"{task}.json")
    return tuple(read_json(Evaluation, output / f"{task}.json") for task in tasks)


def _asking_inputs(planned: PlannedRun, variant: str, task: TaskSpec, level: float | None) -> dict[str, object]:
    parts = planned.run.parts
    baseline = parts.evaluations(BASELINE) / f"{task.name}.json"
    inputs: dict[str, object] = {
        "variant": file_digest(parts.variant(variant) / VARIANT),
        "task": task,
        "data": None if task.data is None else fingerprint(Path(task.data)),
        "seed": planned.plan.seed,
        "dtype": planned.plan.dtype,
        "chat": planned.plan.chat,
        "baseline": None if variant == BASELINE else file_digest(baseline),
    }
    return inputs if level is None else {**inputs, "level": level}
