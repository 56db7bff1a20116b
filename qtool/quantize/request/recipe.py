"""What a recipe may ask for: schemes, groups, activations and formats that can be meant together."""

import re
from collections.abc import Sequence
from dataclasses import replace

from qtool import catalog
from qtool.errors import PlanError, UnknownName
from qtool.formats import registry
from qtool.formats.schemes import SCHEMES
from qtool.records.variant import Recipe

METHODS = "qtool.quantize.methods"
BUDGET = "budget"  # an option of every method: lift the layers worth their bytes up to this size
HEAD = "lm_head"  # what the output head is called in a recipe, whatever the model calls it
BASELINE = Recipe(scheme="base", method="baseline", skip=(), format="none")

DEFAULT_METHOD = Recipe("base").method
DEFAULT_FORMAT = Recipe("base").format


def skipped_layers(names: Sequence[str], *, include_head: bool) -> tuple[str, ...]:
    """Layers to leave alone: the output head, unless it is to be quantized, and `names` beside it."""
    return (*(() if include_head else (HEAD,)), *(name for name in names if name != HEAD))


def completed(recipe: Recipe) -> Recipe:
    """`recipe` with what was left open filled in by the only or the safe choice."""
    if recipe.scheme == "base":
        return replace(BASELINE, options=recipe.options)
    if SCHEMES[recipe.scheme].rounds_inputs and recipe.activations == "none":
        recipe = replace(recipe, activations="dynamic")
    if recipe.activations == "static" and recipe.observer is None:
        recipe = replace(recipe, observer="absmax")
    if recipe.method == DEFAULT_METHOD:
        recipe = replace(recipe, method=SCHEMES[recipe.scheme].default_method)
    return replace(recipe, format=_only_format(recipe) or recipe.format)


def recipe_problems(recipe: Recipe) -> tuple[str, ...]:
    """Everything in `recipe` that cannot be meant, as "key: what, and what instead"; looks at no model."""
    recipe = completed(recipe)
    scheme = SCHEMES[recipe.scheme]
    problems = []
    if recipe.group_size not in scheme.groups:
        allowed = ", ".join(map(str, scheme.groups))
        problems.append(f"group_size: {recipe.group_size} does not go with {recipe.scheme}; use {allowed}")
    if recipe.activations not in scheme.activations:
        allowed = " or ".join(scheme.activations)
        problems.append(f"activations: {recipe.activations!r} does not go with {recipe.scheme}; use {allowed}")
    if recipe.format not in (known := registry.holding(recipe.scheme)):
        allowed = " or ".join(known)
        problems.append(f"format: {recipe.format!r} cannot hold {recipe.scheme}; use {allowed}")
    if not recipe.symmetric and (not scheme.asymmetric or _declares(recipe, "SYMMETRIC")):
        problems.append(f"symmetric: false is not safe with {recipe.scheme} in {recipe.format}; leave it out")
    if recipe.observer is not None and recipe.activations != "static":
        problems.append("observer: only static activations use a calibrated range; set activations = 'static'")
    if _declares(recipe, "ONE_SCHEME") and (recipe.overrides or option(recipe, BUDGET, "")):
        problems.append("overrides: GPTQ has one scheme for all layers; use format compressed-tensors")
    if budget := option(recipe, BUDGET, ""):
        try:
            parse_budget(budget, 1)
        except PlanError as error:
            problems += error.problems
    return (*problems, *_method_problems(recipe))


def widest_group(columns: Sequence[int]) -> int:
    """The widest of 128, 64 and 32 that divides every one of `columns`, or -1 (the whole row)."""
    return next((size for size in (128, 64, 32) if all(width % size == 0 for width in columns)), -1)


def option(recipe: Recipe, name: str, default: str) -> str:
    """The value of option `name` of the recipe's method."""
    return dict(recipe.options).get(name, default)


def parse_budget(text: str, base_bytes: int) -> int:
    """Bytes that "0.35 x base", "1500000" or "1.2 MB" stands for. Raises PlanError for anything else."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*(x\s*base|[kMG]?B|)\s*", text)
    factors = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    try:
        if found is None:
            raise ValueError
        number = float(found[1])
    except ValueError:
        raise PlanError([f"budget: {text!r}; write it as '0.35 x base' or '1.2 MB'"]) from None
    return int(number * (base_bytes if found[2].endswith("base") else factors[found[2]]))


def number_problem(recipe: Recipe, name: str, default: str, low: float, high: float) -> tuple[str, ...]:
    """What is wrong with the option `name` as a number from `low` to `high`: nothing, or one line."""
    text = option(recipe, name, default)
    try:
        value = float(text)
    except ValueError:
        return (f"options.{name}: {text!r} is not a number",)
    return () if low <= value <= high else (f"options.{name}: {text} is not between {low:g} and {high:g}",)


def choice_problem(recipe: Recipe, name: str, default: str, choices: tuple[str, ...]) -> tuple[str, ...]:
    """What is wrong with the option `name` as one of `choices`: nothing, or one line."""
    text = option(recipe, name, default)
    return () if text in choices else (f"options.{name}: {text!r} is not one of {', '.join(choices)}",)


def _declares(recipe: Recipe, what: str) -> bool:
    """Whether the recipe's format says `what` of itself; those of methods that write whole folders say nothing."""
    if recipe.format.replace("-", "_") not in catalog.names(registry.PACKAGE):
        return False
    return bool(getattr(registry.written(recipe.format), what, False))


def _only_format(recipe: Recipe) -> str | None:
    """The one format that scheme and method have in common, where the usual one is not among them."""
    try:
        needs = catalog.load(METHODS, recipe.method, kind="method").NEEDS
    except UnknownName:
        return None  # `recipe_problems` says so
    common = [name for name in registry.holding(recipe.scheme) if not needs.formats or name in needs.formats]
    return common[0] if len(common) == 1 and recipe.format == DEFAULT_FORMAT else None


def _method_problems(recipe: Recipe) -> tuple[str, ...]:
    try:
        method = catalog.load(METHODS, recipe.method, kind="method")
    except UnknownName as error:
        return (f"method: {error}",)
    needs = method.NEEDS
    problems = []
    if recipe.scheme not in needs.schemes:
        problems.append(f"method: {recipe.method!r} does not make {recipe.scheme}, only {', '.join(needs.schemes)}")
    elif needs.formats and recipe.format not in needs.formats:
        problems.append(f"format: {recipe.method!r} does not write {recipe.format!r}, only {', '.join(needs.formats)}")
    for name, _ in recipe.options:
        if name not in needs.options and (name != BUDGET or needs.scope != "block"):
            known = ", ".join(sorted(needs.options)) or "none"
            problems.append(f"options.{name}: unknown option of {recipe.method!r}; known: {known}")
    return (*problems, *method.check(recipe))
