"""The exact command behind each number of a report, to be typed in the folder that holds the run's folder."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from qtool.records.evaluation import Evaluation
from qtool.records.report import Report, ReportRow
from qtool.records.variant import Recipe, Variant


@dataclass(frozen=True, slots=True)
class Behind:
    """What a number is, and the command that measures it again."""

    what: str
    command: str


def behind(report: Report) -> tuple[Behind, ...]:
    """A command for every kind of number in the report, in the order in which they are made."""
    found = [Behind("everything at once", report.command)]
    if report.calibration is not None:
        found.append(Behind("ranges and their certificate", calibrate(report)))
    found += [Behind(f"variant {row.variant.name}", quantize(report, row.variant)) for row in report.rows]
    for row in report.rows:
        found += [
            Behind(f"{row.variant.name} on {', '.join(each.task for each in part)}", evaluate(report, row, part))
            for part in _alike(row.evaluations)
        ]
    timed = [row for row in report.rows if row.latency is not None]
    if timed:
        found.append(Behind("latency, memory and cold start", bench(report, timed)))
    return (*found, Behind("this report", shlex.join(_report(report))))


def decide(report: Report, row: ReportRow, evaluations: tuple[Evaluation, ...]) -> str:
    """The commands that ask as many more items as would decide `evaluations`; they work in the run's own folder."""
    return "\n".join([*(_grow(report, row, part) for part in _alike(evaluations)), shlex.join(_report(report))])


def _grow(report: Report, row: ReportRow, part: tuple[Evaluation, ...]) -> str:
    needed = max((each.comparison.items_to_decide or 0) if each.comparison else 0 for each in part)
    words = ["qtool", "eval", f"{report.run}/variants/{row.variant.name}"]
    words += [word for each in part for word in ("--task", each.task)]
    words += ["--baseline", f"{report.run}/variants/{report.baseline}", "--items", str(part[0].score.items)]
    return shlex.join([*words, *_margin(part[0]), "--until-decided", str(needed), *_chat(part[0])])


def _report(report: Report) -> list[str]:
    return ["qtool", "report", report.run]


def _margin(evaluation: Evaluation) -> list[str]:
    compared = evaluation.comparison
    if compared is None or not evaluation.score.is_fraction:
        return []
    return ["--margin", f"{100 * compared.margin:g}"]


def calibrate(report: Report) -> str:
    """The command that makes the run's calibration."""
    found = report.calibration
    assert found is not None
    words = ["qtool", "calibrate", "run", found.model.source, "-o", f"{report.run}/calibration"]
    words += ["--set", found.set_name, "--sequences", str(found.sequences), "--sequence-tokens"]
    words += [str(found.sequence_tokens), "--seed", str(found.seed)]
    if report.plan is not None and report.plan.calibration.traffic:
        words += ["--traffic", report.plan.calibration.traffic]
    return shlex.join([*words, *(word for name in found.observers for word in ("--observer", name))])


def quantize(report: Report, variant: Variant) -> str:
    """The command that makes one variant."""
    recipe = variant.recipe
    words = ["qtool", "quantize", variant.base.source, "-o", f"{report.run}/variants/{variant.name}"]
    words += ["--scheme", recipe.scheme]
    if recipe.scheme == "base":
        return shlex.join(words)
    words += ["--method", recipe.method, "--group-size", str(recipe.group_size), *_choices(recipe)]
    if report.calibration is not None and variant.calibration_digest is not None:
        words += ["--calibration", f"{report.run}/calibration"]
    return shlex.join(words)


def evaluate(report: Report, row: ReportRow, evaluations: tuple[Evaluation, ...]) -> str:
    """The command that asks one variant these tasks, all with as many items."""
    words = ["qtool", "eval", f"{report.run}/variants/{row.variant.name}"]
    words += [word for each in evaluations for word in ("--task", each.task)]
    if row.variant.name != report.baseline:
        words += ["--baseline", f"{report.run}/evaluations/{report.baseline}"]
    first = evaluations[0]
    words += ["--items", str(first.score.items)]
    return shlex.join([*words, *_margin(first), *_chat(first), "-o", f"{report.run}/evaluations/{row.variant.name}"])


def bench(report: Report, timed: Iterable[ReportRow]) -> str:
    """The command that times all variants side by side."""
    rows = [row for row in timed if row.latency is not None]
    levels = rows[0].latency.levels if rows[0].latency is not None else ()
    words = ["qtool", "bench", *(f"{report.run}/variants/{row.variant.name}" for row in rows)]
    words += ["-o", f"{report.run}/latency"]
    for level in levels:
        words += ["--rate", f"{level.rate_per_second:g}"] if level.rate_per_second else ["-c", str(level.concurrency)]
    if levels:
        words += ["--requests", str(levels[0].requests), "--prompt-tokens", str(levels[0].prompt_tokens)]
        words += ["--output-tokens", str(levels[0].output_tokens)]
    return shlex.join(words)


def _choices(recipe: Recipe) -> list[str]:
    """What a recipe has beside scheme, method and group, as options of `qtool quantize`."""
    words = [] if recipe.symmetric else ["--asymmetric"]
    if recipe.activations != "none":
        words += ["--activations", recipe.activations]
    if recipe.observer:
        words += ["--observer", recipe.observer]
    words += [word for layer in recipe.skip if layer != "lm_head" for word in ("--skip", layer)]
    if "lm_head" not in recipe.skip:
        words.append("--include-head")
    if recipe.format not in ("compressed-tensors", "none", "bitsandbytes"):
        words += ["--format", recipe.format]
    words += [word for name, value in recipe.options for word in ("--option", f"{name}={value}")]
    return words + [word for layer, scheme in recipe.overrides for word in ("--override", f"{layer}={scheme}")]


def _alike(evaluations: tuple[Evaluation, ...]) -> list[tuple[Evaluation, ...]]:
    """The evaluations that one command made: with as many items, the same margin and the same way of asking."""
    parts: dict[tuple[object, ...], list[Evaluation]] = {}
    for each in evaluations:
        margin = each.comparison.margin if each.comparison is not None else None
        parts.setdefault((each.score.items, margin, each.chat), []).append(each)
    return [tuple(part) for part in parts.values()]


def _chat(evaluation: Evaluation) -> list[str]:
    return ["--chat"] if evaluation.chat else []
