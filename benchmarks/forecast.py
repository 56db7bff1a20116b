"""How wrong is the margin forecast? Foretold and measured churn of each task, bundled models.

    python benchmarks/forecast.py [--models reference-64,reference-128] [--items 300] [--bits w4a16:-1,w8a16:-1]

For each model: its answers with the noise that rounding its own weights makes, then each variant, quantized with `rtn`
and a group size (-1: a row), on the same items. Nothing is fitted, so every model is one that was left out. Prints
Markdown: each pair, the rank correlation over tasks and the mean absolute error, in points.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from qtool.evaluate.asking.local import open_folder
from qtool.evaluate.asking.model import KeptOpen
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.items.tasks import load_task
from qtool.evaluate.stage import ask_for, evaluate_asked
from qtool.models.locate import locate
from qtool.progress import RichProgress
from qtool.quantize.stage import quantize
from qtool.records.evaluation import Forecast
from qtool.records.variant import Recipe

TASKS = ("arithmetic", "finance", "reasoning", "facts", "classification", "extraction", "code", "retrieval")


def forecasts(model: str, recipes: list[tuple[str, int]], count: int) -> dict[tuple[str, int], dict[str, Forecast]]:
    """The forecast of each task for each variant of `model`, with what was measured."""
    found: dict[tuple[str, int], dict[str, Forecast]] = {}
    asked = tuple(ask_for(task, count=min(count, task.items)) for task in map(load_task, TASKS))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        keeper = KeptOpen(open_folder)
        evaluate_asked(
            locate(model), asked, root / "base", baseline=None, progress=RichProgress(), settings=Settings(),
            opener=keeper.open,
        )  # fmt: skip
        for scheme, group in recipes:
            variant = root / f"{scheme}-{group}"
            recipe = Recipe(scheme=scheme, method="rtn", group_size=group)  # type: ignore[arg-type]
            quantize(
                locate(model), recipe, variant, name=variant.name, calibration=None, progress=RichProgress(),
                whole_check=False,  # the churn below is a harder check than that of logits
            )  # fmt: skip
            evaluations = evaluate_asked(
                variant, asked, root / f"of {variant.name}", baseline=root / "base", progress=RichProgress(),
                settings=Settings(), opener=keeper.open,
            )  # fmt: skip
            found[scheme, group] = {each.task: each.forecast for each in evaluations if each.forecast is not None}
        keeper.close()
    return found


def main() -> None:
    from scipy import stats

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="reference-64,reference-128,reference-256")
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--bits", default="w4a16:-1,w4a16:64,w8a16:-1", help="scheme:group size, comma between")
    options = parser.parse_args()
    recipes = [(scheme, int(group)) for scheme, _, group in (each.partition(":") for each in options.bits.split(","))]
    print(f"Made by: `python benchmarks/forecast.py {' '.join(sys.argv[1:])}`\n")
    print("Share of answers that change, foretold [interval] and measured, in percent.\n")
    print("| model | variant | " + " | ".join(TASKS) + " | rank correlation | mean error |")
    print("|---" * (len(TASKS) + 4) + "|")
    everything: list[tuple[float, float]] = []
    inside: list[bool] = []
    for model in options.models.split(","):
        for (scheme, group), tasks in forecasts(model, recipes, options.items).items():
            pairs = [(each.predicted, each.measured or 0.0) for each in tasks.values()]
            inside += [
                each.interval is not None and each.interval.low <= (each.measured or 0.0) <= each.interval.high
                for each in tasks.values()
            ]
            everything += pairs
            print(f"| {model} | {scheme} g{group} | " + " | ".join(_cell(tasks.get(task)) for task in TASKS)
                  + f" | {_rank(stats, pairs)} | {_error(pairs)} |", flush=True)  # fmt: skip
    print(f"\n{_summary(stats, everything, inside)}")


def _summary(stats: object, pairs: list[tuple[float, float]], inside: list[bool]) -> str:
    """How good the forecast is where there is something to foretell: 0 foretold and 0 measured proves little."""
    telling = [index for index, (foretold, measured) in enumerate(pairs) if round(foretold, 3) or measured]
    some = [pairs[index] for index in telling]
    if not some:
        return f"All {len(pairs)} pairs are 0 foretold and 0 measured."
    covered = sum(inside[index] for index in telling)
    return (
        f"{len(pairs)} pairs, {len(pairs) - len(some)} of them 0 foretold and 0 measured. Of the other {len(some)}, "
        f"{covered} ({100 * covered / len(some):.0f} %) lie inside the interval that is called 95 %; rank correlation "
        f"{_rank(stats, some)}, mean absolute error {_error(some)} points."
    )


def _cell(found: Forecast | None) -> str:
    if found is None or found.interval is None or found.measured is None:
        return ""
    low, high = 100 * found.interval.low, 100 * found.interval.high
    return f"{100 * found.predicted:.1f} [{low:.1f}, {high:.1f}] / {100 * found.measured:.1f}"


def _rank(stats: object, pairs: list[tuple[float, float]]) -> str:
    measured = {value for _, value in pairs}
    if len(measured) < 2:
        return "none: all measured alike"
    return f"{stats.spearmanr(*zip(*pairs, strict=True)).statistic:.2f}"  # type: ignore[attr-defined]


def _error(pairs: list[tuple[float, float]]) -> str:
    return f"{100 * sum(abs(foretold - measured) for foretold, measured in pairs) / len(pairs):.1f}"


if __name__ == "__main__":
    main()
