"""The only module that orders stages: calibrate, quantize, evaluate, time, report, bundle; skips what is unchanged."""

import shutil
from dataclasses import replace
from pathlib import Path

from qtool import __version__
from qtool.errors import MismatchError, QuantizationError, UnverifiedVariant
from qtool.pipeline.ladder import climb, rung_name
from qtool.pipeline.plan import BASELINE
from qtool.pipeline.planned import PlannedRun, ask, task_of
from qtool.pipeline.run import Run, make
from qtool.progress import Progress
from qtool.records.model import same_base
from qtool.records.plan import Plan, PlannedTask, PlannedVariant
from qtool.records.plan_lock import PlanLock
from qtool.records.report import Report
from qtool.store import layout
from qtool.store.codec import read_json, to_json
from qtool.store.digest import file_digest, fingerprint
from qtool.store.run_directory import locked, write_record, write_text


def run(plan: Plan, folder: Path, *, progress: Progress, command: str, limit: int | None = None) -> Report:
    """Carries out `plan` in `folder` and returns its report; what an earlier, killed or equal run finished is kept.

    `limit` caps the items of every task. Raises StoreError when another process runs in the same folder, and whatever
    a stage raises; the folder then holds all finished stages and the same command resumes. A variant that fails its
    verification is left out, and QuantizationError raised when all else is done.
    """
    from qtool.models.identity import identify
    from qtool.models.locate import locate

    if limit is not None:
        plan = replace(plan, tasks=tuple(replace(task, items=_capped(plan, task, limit)) for task in plan.tasks))
    model = locate(plan.base)
    with locked(folder.parent / f".{folder.name}.run.lock", holds=str(folder)):
        identity = identify(model, source=plan.base)
        state = PlannedRun(Run(model, identity.weights_digest, folder, progress), plan, identity)
        _write_lock(state, command)
        _calibrate(state)
        made, unverified = _make_and_ask(state)
        _measure_latency(state, made)
        report = _report(state, made, command)
        _bundle(state, report)
    if unverified:
        raise QuantizationError(
            f"{folder}: the run is finished without {', '.join(unverified)}, which failed verification: "
            + "; ".join(str(error) for error in unverified.values())
        )
    return report


def _capped(plan: Plan, task: PlannedTask, limit: int) -> int:
    asked = task.items if task.items is not None else task_of(plan, task).items
    return min(asked, limit)


def _write_lock(state: PlannedRun, command: str) -> None:
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import version

    from qtool.machine.device import hardware

    packages = ("torch", "transformers", "compressed-tensors", "numpy", "scipy")
    versions = (("qtool", __version__), ("python", platform.python_version()))
    lock = PlanLock(
        plan=state.plan,
        model=state.identity,
        tasks=state.tasks,
        versions=versions + tuple((name, version(name)) for name in packages),
        hardware=hardware(),
        command=command,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = state.run.folder / layout.PLAN_LOCK
    if path.exists():
        before = read_json(PlanLock, path)
        if before.plan == lock.plan:
            lock = replace(lock, command=before.command, started=before.started or lock.started)
        if not same_base(before.model, lock.model):
            raise MismatchError(
                f"{state.run.folder}: holds a run of another base model ({before.model.name}, not {lock.model.name}); "
                "choose another folder"
            )
    write_record(path, lock)


def _calibrate(state: PlannedRun) -> None:
    from qtool.calibrate.stage import calibrate

    output = state.run.parts.calibration
    settings = state.plan.calibration
    if settings.chat is None:
        settings = replace(settings, chat=state.plan.chat)
    state.run.stage(
        "calibrate",
        {"model": state.identity.weights_digest, "settings": settings, "set": _set_inputs(state.plan)},
        output / layout.CALIBRATION,
        lambda: calibrate(
            state.run.model,
            settings,
            output,
            progress=state.run.progress,
            sets_dir=Path(state.plan.sets_dir) if state.plan.sets_dir else None,
            replace=True,
        ),
    )


def _set_inputs(plan: Plan) -> dict[str, object]:
    """The calibration set as it is now: its description, and the state of every data file it names."""
    from qtool.data.sets import load_set

    spec = load_set(plan.calibration.set, sets_dir=Path(plan.sets_dir) if plan.sets_dir else None)
    files = [source.data for source in spec.sources if source.data is not None]
    return {"set": spec, "files": [fingerprint(Path(file)) for file in files]}


def _make_and_ask(state: PlannedRun) -> tuple[tuple[PlannedVariant, ...], dict[str, UnverifiedVariant]]:
    """Makes and evaluates the baseline and every variant; a ladder stands for the rungs that were tried. Variants that
    fail their verification are told apart; where all do, the first error is raised."""
    from qtool.quantize.request import recipe

    single = [variant for variant in state.plan.variants if variant.until is None]
    make(state.run, BASELINE, recipe.BASELINE)
    unverified: dict[str, UnverifiedVariant] = {}
    for variant in single:
        try:
            make(state.run, variant.name, variant.recipe)
        except UnverifiedVariant as error:
            unverified[variant.name] = error
            state.run.progress.note(f"{error}; the run goes on without it")
    if len(unverified) == len(state.plan.variants):
        raise next(iter(unverified.values()))
    ask(state, BASELINE)
    kept = [variant for variant in state.plan.variants if variant.name not in unverified]
    for variant in kept:
        if variant.until is None:
            ask(state, variant.name)
    made = []
    for variant in kept:
        made += [variant] if variant.until is None else climb(state, variant)
    _remove_untried(state, {variant.name for variant in made})
    return tuple(made), unverified


def _remove_untried(state: PlannedRun, made: set[str]) -> None:
    """Removes rungs that an earlier run of the plan tried and this one did not: their verdicts are of other terms."""
    for variant in state.plan.variants:
        names = [rung_name(variant, index) for index in range(variant.tries)] if variant.until is not None else []
        for name in names:
            if name not in made and state.run.parts.variant(name).is_dir():
                shutil.rmtree(state.run.parts.variant(name))
                shutil.rmtree(state.run.parts.evaluations(name), ignore_errors=True)


def _measure_latency(state: PlannedRun, made: tuple[PlannedVariant, ...]) -> None:
    from qtool.latency.stage import measure

    output = state.run.parts.latency
    timed = {name: state.run.parts.variant(name) for name in (BASELINE, *_worth_timing(state, made))}
    inputs = {
        "settings": state.plan.latency,
        "dtype": state.plan.dtype,
        "variants": {name: file_digest(path / layout.VARIANT) for name, path in timed.items()},
    }
    last = list(timed)[-1]
    state.run.stage(
        "latency",
        inputs,
        output / f"{last}.json",
        lambda: measure(timed, state.plan.latency, output, progress=state.run.progress, dtype=state.plan.dtype),
        also=[output / f"{name}{ending}.json" for name in timed for ending in ("", ".samples", ".bench_serve")],
    )


def _worth_timing(state: PlannedRun, made: tuple[PlannedVariant, ...]) -> list[str]:
    """Every variant of the plan, and of a ladder the rung it ended on."""
    names = [variant.name for variant in made]
    planned = [variant.name for variant in state.plan.variants if variant.until is None and variant.name in names]
    for ladder in (variant for variant in state.plan.variants if variant.until is not None):
        planned.append([name for name in names if name in {rung_name(ladder, i) for i in range(ladder.tries)}][-1])
    return sorted(planned, key=names.index)


def _report(state: PlannedRun, made: tuple[PlannedVariant, ...], command: str) -> Report:
    from qtool.report.stage import report

    write_text(state.run.folder / layout.PLAN, to_json(replace(state.plan, variants=made)))
    return report(state.run.folder, command=command)


def _bundle(state: PlannedRun, report: Report) -> None:
    from qtool.bundle.stage import bundle

    if report.recommendation.variant is None:
        state.run.progress.note(f"bundle: none made; {report.recommendation.reason}")
        return
    output = state.run.parts.bundle
    state.run.stage(
        "bundle",
        {"report": file_digest(state.run.folder / layout.REPORT)},
        output / layout.BUNDLE,
        lambda: bundle(state.run.folder, variant=None, output=output, progress=state.run.progress, replace=True),
    )
