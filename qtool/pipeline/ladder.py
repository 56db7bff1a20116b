"""`until = "pass"`: mixed variants of growing size, made and evaluated one by one until one passes.

It orders stages as pipeline/stages.py does. Trying several variants on the same items and keeping the first that passes
would
raise the chance of a false PASS above the 5 % that a verdict promises; so the number of tries is fixed before the first
look, and each is tested at 5 % divided by it (Bonferroni).
"""

from dataclasses import replace
from pathlib import Path

from qtool.pipeline.planned import PlannedRun, ask
from qtool.pipeline.run import make
from qtool.records.ladder import Ladder, Rung, ladder_text
from qtool.records.plan import PlannedVariant
from qtool.records.ship_rule import overall, verdict_of
from qtool.records.variant import Recipe, Variant
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.digest import file_digest
from qtool.store.run_directory import write_record


def rung_name(variant: PlannedVariant, index: int) -> str:
    """The name of try number `index` of a ladder."""
    return f"{variant.name}-{index}"


def climb(planned: PlannedRun, variant: PlannedVariant) -> list[PlannedVariant]:
    """Makes and evaluates the rungs of `variant`, the smallest first, up to the first that passes every critical task;
    returns those that were tried and writes `ladders/<variant>.json`."""
    from qtool.evaluate.verdicts.verdict import LEVEL

    run = planned.run
    recipes = _recipes(planned, variant)
    level = LEVEL / len(recipes)
    tried: list[Rung] = []
    for index, recipe in enumerate(recipes):
        name = rung_name(variant, index)
        make(run, name, recipe)
        found = ask(planned, name, level=level)
        written = read_json(Variant, run.parts.variant(name) / layout.VARIANT)
        lifted = len(recipe.overrides) - len(variant.recipe.overrides)
        tried.append(Rung(name, written.bytes, lifted, overall(map(verdict_of, found))))
        if tried[-1].overall == "PASS":
            break
    passed = tried[-1].variant if tried[-1].overall == "PASS" else None
    ladder = Ladder(variant.name, len(recipes), level, tuple(tried), passed)
    write_record(run.parts.ladders / f"{variant.name}.json", ladder)
    run.progress.note(ladder_text(ladder))
    return [replace(variant, name=rung.variant, recipe=recipes[i], until=None) for i, rung in enumerate(tried)]


def _recipes(planned: PlannedRun, variant: PlannedVariant) -> tuple[Recipe, ...]:
    """The rungs, from the sensitivity of each layer, which is measured once and kept."""
    from qtool.quantize.request.mixed import plain, rungs
    from qtool.quantize.request.prepare import measuring_rows
    from qtool.quantize.request.sensitivity import measure
    from qtool.records.sensitivity import Sensitivity

    run = planned.run
    path = run.parts.ladders / f"{variant.name}.sensitivity.json"
    recipe = plain(variant.recipe)
    inputs = {
        "model": run.weights_digest,
        "recipe": recipe,
        "calibration": file_digest(run.parts.calibration / layout.CALIBRATION),
    }

    def work() -> Path:
        rows = measuring_rows(run.model, run.parts.calibration)
        kept = path.with_suffix(".trials.jsonl")
        write_record(path, measure(run.model, recipe, rows, progress=run.progress, kept=kept))
        return path

    run.stage(f"sensitivity:{variant.name}", inputs, path, work)
    return rungs(run.model, variant.recipe, read_json(Sensitivity, path), tries=variant.tries)
