"""What a run folder holds, read strictly; what is missing, stale or does not fit together is said, never guessed."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from qtool.errors import MismatchError, PlanError, StoreError
from qtool.records.calibration import Calibration
from qtool.records.evaluation import Evaluation
from qtool.records.ladder import Ladder, ladder_text
from qtool.records.latency import LatencyProfile
from qtool.records.model import same_base
from qtool.records.plan import Plan
from qtool.records.plan_lock import PlanLock
from qtool.records.report import FlippedItem
from qtool.records.sensitivity import Sensitivity
from qtool.records.ship_rule import counting_tasks, tier_of
from qtool.records.task import Tier
from qtool.records.unverified import problem_of
from qtool.records.variant import Variant
from qtool.report.flips import read_flips
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.shipped import evals_folder

T = TypeVar("T")
_SENSITIVITY = ".sensitivity.json"


@dataclass(frozen=True, slots=True)
class Joined:
    """All records of one run folder, by variant name; `notes` are sentences about what is missing."""

    plan: Plan | None
    variants: tuple[Variant, ...]
    evaluations: dict[str, tuple[Evaluation, ...]]
    latency: dict[str, LatencyProfile]
    calibration: Calibration | None
    notes: tuple[str, ...]
    lock: PlanLock | None = None
    flips: tuple[FlippedItem, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()

    @property
    def baseline(self) -> Variant:
        """The variant that every other one is compared with."""
        return next(variant for variant in self.variants if variant.recipe.scheme == "base")

    @property
    def planned_variants(self) -> tuple[str, ...]:
        """Names of the plan's variants, in its order; empty without a plan."""
        return tuple(variant.name for variant in self.plan.variants) if self.plan else ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that was planned or evaluated, in the plan's order."""
        planned = tuple(task.name for task in self.plan.tasks) if self.plan else ()
        found = {evaluation.task for rows in self.evaluations.values() for evaluation in rows}
        return tuple(dict.fromkeys((*planned, *sorted(found))))


def join(run: Path) -> Joined:
    """Everything the run folder `run` holds. Raises StoreError where there is nothing to compare."""
    if not run.is_dir():
        raise StoreError(f"{run}: no such folder; give the folder that `qtool run` wrote")
    folder = layout.RunFolder(run)
    plan = _optional(Plan, run / layout.PLAN)
    variants = _variants(folder.variants, plan)
    evaluations = {variant.name: _evaluations(folder.evaluations(variant.name)) for variant in variants}
    latency: dict[str, LatencyProfile] = {}
    for variant in variants:
        profile = _optional(LatencyProfile, folder.latency / f"{variant.name}.json")
        if profile is not None:
            latency[variant.name] = profile
    calibration = _optional(Calibration, folder.calibration / layout.CALIBRATION)
    lock = _optional(PlanLock, run / layout.PLAN_LOCK)
    flips = [
        flip
        for variant in variants
        for each in evaluations[variant.name]
        for flip in read_flips(folder.evaluations(variant.name), variant.name, each.task)
    ]
    measured = sorted(folder.ladders.glob(f"*{_SENSITIVITY}"))
    sensitivities = tuple(read_json(Sensitivity, path) for path in measured)
    joined = Joined(plan, variants, evaluations, latency, calibration, (), lock, tuple(flips), sensitivities)
    _refuse_other_bases(run, joined)
    ladders = tuple(ladder_text(read_json(Ladder, path)) for path in _ladders(folder.ladders))
    return replace(joined, notes=(*ladders, *_notes(joined)))


def critical_tasks(joined: Joined) -> tuple[str, ...]:
    """The tasks a variant must pass, by the ship rule: critical as the plan says, else as the evaluation says, else as
    the task file says."""
    folder = Path(joined.plan.evals_dir) if joined.plan and joined.plan.evals_dir else None
    return counting_tasks({task: _tier(task, joined, folder) for task in joined.tasks})


def tier_in(joined: Joined, task: str) -> Tier:
    """What `task` weighs in the ship rule, said in the same places."""
    return _tier(task, joined, Path(joined.plan.evals_dir) if joined.plan and joined.plan.evals_dir else None)


def _tier(task: str, joined: Joined, evals_dir: Path | None) -> Tier:
    said = [
        (planned.tier, planned.critical)
        for planned in (joined.plan.tasks if joined.plan else ())
        if planned.name == task
    ]
    said += [
        (entry.tier, entry.critical) for rows in joined.evaluations.values() for entry in rows if entry.task == task
    ]
    for tier, critical in said:
        if tier is not None or critical is not None:
            return tier_of(tier, critical=critical)
    for folder in (evals_dir, evals_folder()):
        path = folder / f"{task}.toml" if folder is not None else None
        if path is not None and path.is_file():
            written = _toml(path)
            known: dict[object, Tier] = {"critical": "critical", "supporting": "supporting", "advisory": "advisory"}
            return tier_of(known.get(written.get("tier")), critical=bool(written.get("critical", True)))
    return "critical"


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError([f"{path}: not valid TOML: {error}"]) from error


def _variants(folder: Path, plan: Plan | None) -> tuple[Variant, ...]:
    manifests = sorted(folder.glob(f"*/{layout.VARIANT}"))
    variants = [read_json(Variant, path) for path in manifests]
    for variant, path in zip(variants, manifests, strict=True):
        if variant.name != path.parent.name:
            raise StoreError(f"{path}: says its name is {variant.name!r}; the folder was renamed, rename it back")
    baselines = [variant.name for variant in variants if variant.recipe.scheme == "base"]
    if len(baselines) != 1:
        found = ", ".join(variant.name for variant in variants) or "no variant at all"
        raise StoreError(
            f"{folder}: a report compares variants with exactly one baseline, found {len(baselines)} among {found}; "
            "write it with: qtool quantize MODEL --scheme base"
        )
    order = {entry.name: place for place, entry in enumerate(plan.variants)} if plan else {}
    return tuple(
        sorted(variants, key=lambda one: (one.recipe.scheme != "base", order.get(one.name, len(order)), one.name))
    )


def _evaluations(folder: Path) -> tuple[Evaluation, ...]:
    # <task>.json alone is an evaluation; <task>.floor.json beside it is another record
    manifests = (path for path in sorted(folder.glob("*.json")) if "." not in path.stem)
    return tuple(read_json(Evaluation, path) for path in manifests)


def _ladders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if not path.name.endswith(_SENSITIVITY)]


def _optional(record: type[T], path: Path) -> T | None:
    return read_json(record, path) if path.is_file() else None


def _notes(joined: Joined) -> list[str]:
    present = {variant.name for variant in joined.variants}
    notes = [f"variant {name}: planned, not there yet" for name in joined.planned_variants if name not in present]
    if joined.calibration is None:
        notes.append("calibration: none in this run")
    for variant in joined.variants:
        if problem := problem_of(variant):
            notes.append(f"variant {variant.name}: failed verification, may not be shipped: {problem}")
        done = {evaluation.task for evaluation in joined.evaluations[variant.name]}
        missing = [task for task in joined.tasks if task not in done]
        if missing:
            notes.append(f"variant {variant.name}: not evaluated on {', '.join(missing)}")
        if variant.name not in joined.latency:
            notes.append(f"variant {variant.name}: latency not measured")
    if not joined.tasks:
        notes.append("evaluations: none in this run, so nothing here says whether a variant may be shipped")
    return notes + _misfits(joined) + _cautions(joined)


def _refuse_other_bases(run: Path, joined: Joined) -> None:
    """Raises MismatchError where a variant, or an evaluation of it, is of another base model than the baseline."""
    base = joined.baseline.base
    for variant in joined.variants:
        if not same_base(variant.base, base):
            raise MismatchError(
                f"{run}: variant {variant.name} was made from {variant.base.name} (weights "
                f"{variant.base.weights_digest[:12]}), the baseline from {base.name} ({base.weights_digest[:12]}); "
                "make both from one base"
            )
        for evaluation in joined.evaluations[variant.name]:
            if evaluation.base_digest not in ("", base.weights_digest):
                raise MismatchError(
                    f"{run}: {evaluation.task} of {variant.name} was answered by a model of another base "
                    f"(weights {evaluation.base_digest[:12]}, not {base.weights_digest[:12]}); evaluate it again"
                )


def _misfits(joined: Joined) -> list[str]:
    """Parts that were not made from the same thing."""
    notes = []
    baseline = joined.baseline
    items = {evaluation.task: evaluation.items_digest for evaluation in joined.evaluations[baseline.name]}
    for variant in joined.variants:
        for evaluation in joined.evaluations[variant.name]:
            if evaluation.items_digest != items.get(evaluation.task, evaluation.items_digest):
                notes.append(f"variant {variant.name}, {evaluation.task}: other items than the baseline answered")
        digests = {evaluation.variant_digest for evaluation in joined.evaluations[variant.name]}
        if variant.name in joined.latency:
            digests.add(joined.latency[variant.name].variant_digest)
        if len(digests) > 1:
            notes.append(f"variant {variant.name}: evaluations and latency belong to different weights; run it again")
    return notes


def _cautions(joined: Joined) -> list[str]:
    """What a reader of the latency numbers must know."""
    notes = []
    profiles = list(joined.latency.values())
    machines = {
        (p.machine.hardware, p.machine.device, p.machine.threads, p.machine.torch_version): None for p in profiles
    }
    if len(machines) > 1:
        notes.append("latency: profiles come from different machines or settings and must not be compared")
    # evaluation, just before, keeps `threads` cores and one more process (graded code) busy by itself
    busy = [p for p in profiles if p.machine.load_average_before > p.machine.threads + 1]
    if busy:
        load = max(profile.machine.load_average_before for profile in busy)
        names = ", ".join(profile.variant for profile in busy)
        notes.append(
            f"latency: the load average was up to {load:.1f} before timing {names}: other work, or the programs that "
            "the evaluation just before had graded; `qtool bench` on an idle machine is sure"
        )
    simulated = [p.variant for p in profiles if p.simulated]
    if simulated:
        notes.append(f"latency: {', '.join(simulated)} ran in simulation here (no kernel); times say nothing of speed")
    return notes
