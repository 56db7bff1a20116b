"""Reads `plan.toml` and refuses what cannot work, all problems at once, before any work is done."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, cast

from qtool import catalog
from qtool.errors import PlanError, QtoolError
from qtool.quantize.request.recipe import BUDGET, completed, recipe_problems, skipped_layers
from qtool.records.cost import CostSettings
from qtool.records.plan import (
    Budget,
    CalibrationSettings,
    LatencySettings,
    Plan,
    PlannedTask,
    PlannedVariant,
)
from qtool.records.quantile_rule import samples_needed
from qtool.records.task import TaskSpec, Tier
from qtool.records.variant import Activations, Recipe, SchemeName
from qtool.store.codec import read_toml

BASELINE = "baseline"
_SCHEME_OF_BITS: dict[int | str, SchemeName] = {4: "w4a16", 8: "w8a16", "auto": "w4a16"}


@dataclass(frozen=True, slots=True)
class VariantTable:
    """`[variants.<name>]` as written: a recipe, and instead of one scheme for all layers a budget or a goal.

    `bits` stands for a scheme: 4 for w4a16, 8 for w8a16, "auto" for w4a16 with the layers that need them in more bits.
    `budget` is a size ("0.35 x base", "1.2 MB" or bytes) to fill with the layers worth it, `until = "pass"` lifts ever
    more layers until every critical task passes, with at most `tries` variants. `skip` names layers to leave alone
    beside the output head, which is quantized only where `include_head` says so.
    """

    scheme: SchemeName | None = None
    bits: int | str | None = None
    budget: str | int | None = None
    until: Literal["pass"] | None = None
    tries: int = 6
    method: str = "rtn"
    group_size: int = -1
    symmetric: bool = True
    activations: Activations = "none"
    observer: str | None = None
    skip: tuple[str, ...] = ()
    include_head: bool = False
    format: str = "compressed-tensors"
    options: tuple[tuple[str, str], ...] = ()
    overrides: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TaskTable:
    """`[tasks.<name>]` as written; unset values come from the task file."""

    margin_points: float | None = None
    items: int | None = None
    critical: bool | None = None
    data: str | None = None
    tier: Tier | None = None
    margin_percent: float | None = None
    base_score: float | None = None
    repeats: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class PlanFile:
    """`plan.toml` as written: variants and tasks are tables by name."""

    base: str
    variants: dict[str, VariantTable]
    tasks: dict[str, TaskTable]
    name: str | None = None
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    budget: Budget = field(default_factory=Budget)
    cost: CostSettings = field(default_factory=CostSettings)
    seed: int = 0
    dtype: str = "auto"
    evals_dir: str | None = None
    sets_dir: str | None = None
    chat: bool | None = None


def read_plan(path: Path) -> Plan:
    """The checked plan of `path`; relative folders in it are taken from the plan's own folder.

    Raises PlanError with every unknown key, wrong type, unknown name and impossible combination, each with its key.
    """
    written = read_toml(PlanFile, path)
    if unclear := [text for name, table in written.variants.items() for text in _bits_problems(table, name)]:
        raise PlanError([f"{path}: {text}" for text in unclear])
    plan = Plan(
        base=written.base,
        name=written.name or path.stem,
        variants=tuple(_planned(name, table) for name, table in written.variants.items()),
        tasks=tuple(
            PlannedTask(
                name,
                table.margin_points,
                table.items,
                table.critical,
                _beside(path, table.data),
                table.tier,
                table.margin_percent,
                table.base_score,
                table.repeats,
                table.temperature,
            )
            for name, table in written.tasks.items()
        ),
        calibration=written.calibration,
        latency=written.latency,
        budget=written.budget,
        cost=written.cost,
        seed=written.seed,
        dtype=written.dtype,
        evals_dir=_beside(path, written.evals_dir),
        sets_dir=_beside(path, written.sets_dir),
        chat=written.chat,
    )
    problems = [f"{path}: {problem}" for problem in plan_problems(plan)]
    if problems:
        raise PlanError(problems)
    return plan


def _bits_problems(table: VariantTable, name: str) -> list[str]:
    """What is wrong with the number of bits asked for, before it can be turned into a scheme."""
    if table.scheme is None and table.bits is None:
        return [f"variants.{name}: give scheme, for example 'w4a16', or bits: 4, 8 or 'auto'"]
    if table.bits is None:
        return []
    if table.bits not in _SCHEME_OF_BITS:
        return [f"variants.{name}.bits: {table.bits!r} is not one of 4, 8, 'auto'"]
    if table.scheme not in (None, _SCHEME_OF_BITS[table.bits]):
        return [f"variants.{name}.bits: {table.bits!r} does not go with scheme {table.scheme!r}; give one of the two"]
    return []


def _planned(name: str, table: VariantTable) -> PlannedVariant:
    scheme = table.scheme or _SCHEME_OF_BITS[cast(int | str, table.bits)]  # _bits_problems has seen to one of them
    budget = () if table.budget is None else ((BUDGET, str(table.budget)),)
    recipe = Recipe(
        scheme=scheme,
        method=table.method,
        group_size=table.group_size,
        symmetric=table.symmetric,
        activations=table.activations,
        observer=table.observer,
        skip=skipped_layers(table.skip, include_head=table.include_head),
        format=table.format,
        options=(*table.options, *budget),
        overrides=table.overrides,
    )
    until = table.until or ("pass" if table.bits == "auto" and table.budget is None else None)
    return PlannedVariant(name, completed(recipe), until, table.tries)


def plan_problems(plan: Plan) -> list[str]:
    """Every reason why `plan` cannot be carried out, each starting with the key it is about; empty when it can."""
    problems = []
    if not plan.variants:
        problems.append("variants: name at least one, for example [variants.w8a16]")
    if not plan.tasks:
        problems.append("tasks: name at least one, for example [tasks.arithmetic]")
    if plan.dtype not in ("auto", "bfloat16", "float16", "float32"):
        problems.append(f"dtype: {plan.dtype!r} is not one of auto, bfloat16, float16, float32")
    for variant in plan.variants:
        problems += [f"variants.{variant.name}.{text}" for text in _variant_problems(plan, variant)]
    for task in plan.tasks:
        problems += [f"tasks.{task.name}{text}" for text in _task_problems(plan, task)]
    return problems + _setting_problems(plan)


def _variant_problems(plan: Plan, variant: PlannedVariant) -> list[str]:
    problems = list(recipe_problems(variant.recipe))
    if variant.until is not None:
        problems += _ladder_problems(plan, variant)
    if variant.name in (BASELINE, "") or "/" in variant.name or variant.name.startswith("."):
        problems.append(f"name: {variant.name!r} cannot be a variant's name; the baseline is added by itself")
    observer = variant.recipe.observer
    if variant.recipe.activations == "static" and observer is not None and observer not in plan.calibration.observers:
        problems.append(f"observer: {observer!r} is not in calibration.observers {list(plan.calibration.observers)}")
    return problems


def _ladder_problems(plan: Plan, variant: PlannedVariant) -> list[str]:
    problems = []
    if not 2 <= variant.tries <= 50:
        problems.append(f"tries: {variant.tries} is not between 2 and 50")
    # GPTQ cannot hold mixed layers, and methods that write the folder themselves take no choice of layers
    probe = replace(variant.recipe, options=(*variant.recipe.options, (BUDGET, "1 x base")))
    more = set(recipe_problems(probe)) - set(recipe_problems(variant.recipe))
    if variant.recipe.scheme == "base" or any(BUDGET in text or text.startswith("overrides") for text in more):
        problems.append(f"until: {variant.recipe.method!r} in {variant.recipe.format} cannot give layers more bits")
    rung_names = {f"{variant.name}-{index}" for index in range(variant.tries)}
    taken = sorted(rung_names & {other.name for other in plan.variants})
    problems += [f"until: its tries are called {variant.name}-0 and so on, as is variant {name}" for name in taken]
    return problems


def _task_problems(plan: Plan, task: PlannedTask) -> list[str]:
    from qtool.evaluate.items.tasks import load_task, task_problems

    problems = []
    try:
        spec = load_task(task.name, evals_dir=Path(plan.evals_dir) if plan.evals_dir else None)
        own = task_problems(replace(with_plan(spec, task), items=1, margin_points=1.0))  # those two are told below
        problems += [f".{text}" for text in own]
    except QtoolError as error:
        problems.append(f": {error}")
    if task.margin_points is not None and task.margin_percent is not None:
        problems.append(".margin_percent: the margin was given twice; leave margin_points or margin_percent out")
    if task.margin_points is not None and not 0 < task.margin_points <= 100:
        problems.append(f".margin_points: {task.margin_points} is not above 0 and at most 100")
    if task.items is not None and task.items < 1:
        problems.append(f".items: {task.items} is not at least 1")
    return problems


def with_plan(spec: TaskSpec, task: PlannedTask) -> TaskSpec:
    """`spec` with what the plan says of it; a margin in one form replaces one in the other."""
    said = {
        name: value
        for name in ("margin_points", "margin_percent", "critical", "items", "data", "tier", "base_score", "repeats",
                     "temperature")
        if (value := getattr(task, name)) is not None
    }  # fmt: skip
    if task.margin_points is not None:
        said["margin_percent"] = None
    if task.critical is not None and task.tier is None:
        said["tier"] = None
    return replace(spec, **said)


def _setting_problems(plan: Plan) -> list[str]:
    from qtool.data.sets import load_set

    problems = []
    try:
        load_set(plan.calibration.set, sets_dir=Path(plan.sets_dir) if plan.sets_dir else None)
    except QtoolError as error:
        problems.append(f"calibration.set: {error}")
    observers = catalog.names("qtool.calibrate.observers")
    for name in plan.calibration.observers:
        if name.split(":")[0] not in observers:
            problems.append(f"calibration.observers: unknown observer {name!r}; known: {', '.join(observers)}")
    counts = {
        "calibration.sequences": plan.calibration.sequences,
        "calibration.sequence_tokens": plan.calibration.sequence_tokens,
        "latency.requests": plan.latency.requests,
        "latency.prompt_tokens": plan.latency.prompt_tokens,
        "latency.output_tokens": plan.latency.output_tokens,
        **{f"latency.concurrency[{index}]": level for index, level in enumerate(plan.latency.concurrency)},
    }
    problems += [f"{key}: {value} is not at least 1" for key, value in counts.items() if value < 1]
    fewest = samples_needed(0.5)
    if 1 <= plan.latency.requests < fewest:
        problems.append(f"latency.requests: {plan.latency.requests} give no median; time at least {fewest} at a level")
    limits = {"budget.memory_bytes": plan.budget.memory_bytes, "budget.e2e_ms_p95": plan.budget.e2e_ms_p95}
    problems += [f"{key}: {value} is not above 0" for key, value in limits.items() if value is not None and value <= 0]
    return problems + _cost_problems(plan.cost)


def _cost_problems(cost: CostSettings) -> list[str]:
    from qtool.report.money.prices import read_prices

    problems = []
    if cost.machine is not None and cost.machine not in read_prices().machines:
        problems.append(f"cost.machine: {cost.machine!r} is not one of {', '.join(read_prices().machines)}")
    for key in ("dollars_per_hour", "memory_gb"):
        value = getattr(cost, key)
        if value is not None and value <= 0:
            problems.append(f"cost.{key}: {value} is not above 0")
    names = [each.name for each in fields(cost) if each.name.endswith(("_dollars", "_month"))]
    values = ((name, getattr(cost, name)) for name in names)
    return problems + [f"cost.{name}: {value} is below 0" for name, value in values if value is not None and value < 0]


def _beside(plan: Path, folder: str | None) -> str | None:
    return None if folder is None else str((plan.parent / Path(folder).expanduser()).resolve())
