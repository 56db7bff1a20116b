"""The first screen: may it ship, which variant, for which tasks, what it saves, what is open, and what bears on it."""

from collections.abc import Iterator
from dataclasses import dataclass

from qtool.records.cost import LoadCost
from qtool.records.evaluation import Comparison, Evaluation
from qtool.records.latency import LoadLevel
from qtool.records.report import Report, ReportRow
from qtool.records.ship_rule import run_verdict
from qtool.records.unverified import problem_of
from qtool.records.variant import Recipe
from qtool.report import commands
from qtool.report.drawing.certificate import headline
from qtool.report.money.fit import CARDS_GB, footprint, instances
from qtool.report.texts.numbers import (
    bytes_text,
    dollars_text,
    lowest_level,
    median,
    ms_text,
    signed,
    speed_span,
)

_WORDS = {"PASS": "SHIP", "FAIL": "SHIP NONE", "UNDECIDED": "NOT DECIDED"}
_LEARNS_NOTHING = ("rtn", "baseline", "imported", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Saving:
    """One thing that the variant changes: `before` is the baseline's, `change` says how much."""

    what: str
    after: str
    before: str
    change: str


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """What is undecided of a variant, and the commands that would decide it; empty where no number of items would."""

    variant: str
    needs: str
    command: str


@dataclass(frozen=True, slots=True)
class Caution:
    """A warning that bears on the decision, with the section of the page that says more."""

    text: str
    section: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Everything on the first screen, in words."""

    word: str
    verdict: str
    title: str
    savings: tuple[Saving, ...]
    open: tuple[OpenQuestion, ...]
    cautions: tuple[Caution, ...]


def decision(report: Report) -> Decision:
    """The first screen of `report`."""
    verdict = run_verdict(report)
    chosen = next((row for row in report.rows if row.variant.name == report.recommendation.variant), None)
    if chosen is not None:
        title = chosen.variant.name
    elif verdict == "FAIL":
        title = f"stay with {report.baseline}"
    else:
        title = "more items are needed" if any(_open(report)) else "no variant was compared"
    savings = tuple(_savings(report, chosen)) if chosen is not None else ()
    return Decision(_WORDS[verdict], verdict, title, savings, tuple(_open(report)), tuple(_cautions(report, chosen)))


def relies_on_calibration(recipe: Recipe) -> bool:
    """Whether anything the calibration found went into the variant's numbers."""
    return recipe.activations == "static" or recipe.method not in _LEARNS_NOTHING


def highest_level(row: ReportRow) -> LoadLevel | None:
    """The load level with most requests in flight."""
    levels = row.latency.levels if row.latency is not None else ()
    return max(levels, key=lambda level: level.concurrency, default=None)


def cost_at(report: Report, variant: str, level: LoadLevel | None) -> LoadCost | None:
    """What `variant` costs at one load."""
    if report.costs is None or level is None:
        return None
    loads = (load for load in report.costs.loads if load.variant == variant)
    where = (level.concurrency, level.rate_per_second)
    return next((load for load in loads if (load.concurrency, load.rate_per_second) == where), None)


def _savings(report: Report, row: ReportRow) -> Iterator[Saving]:
    base = report.rows[0]
    less = 100 * (1 - row.bytes_ratio)
    change = f"{less:.0f} % less" if less >= 0 else f"{-less:.0f} % more"
    yield Saving("weights on disk", bytes_text(row.variant.bytes), bytes_text(base.variant.bytes), change)
    now, before = median(row.latency), median(base.latency)
    if now and before and now.value_ms and before.value_ms and row.speedup:
        span = speed_span(base.latency, row.latency)
        same = span is not None and span.low <= 1 <= span.high
        tokens = lowest_level(row.latency)
        what = f"one answer of {tokens.output_tokens} tokens" if tokens else "one answer"
        faster = "no difference that these samples show" if same else f"{row.speedup:.2f} times as fast"
        yield Saving(what, ms_text(now.value_ms), ms_text(before.value_ms), faster)
    yield from _of_profiles(report, row, base)


def _of_profiles(report: Report, row: ReportRow, base: ReportRow) -> Iterator[Saving]:
    if row.latency is None or base.latency is None or row.latency.simulated:
        return
    high, other = highest_level(row), highest_level(base)
    if high is not None and other is not None and other.output_tokens_per_second:
        ratio = high.output_tokens_per_second / other.output_tokens_per_second
        now, before = (f"{level.output_tokens_per_second:,.0f} tokens/s" for level in (high, other))
        yield Saving(f"{high.concurrency} requests at once", now, before, f"{ratio:.2f} times the throughput")
    needed = footprint(row.latency).bytes
    card = next((size for size in CARDS_GB if instances(base.latency, size * 1e9)), CARDS_GB[-1])
    counts = [instances(profile, card * 1e9) for profile in (row.latency, base.latency)]
    more = f"{bytes_text(needed)} each, weights and cache"
    yield Saving(f"instances on a {card} GB card", f"{counts[0]:,}", f"{counts[1]:,}", more)
    costs = [cost_at(report, each.variant.name, highest_level(each)) for each in (row, base)]
    prices = [cost.dollars_per_million_tokens for cost in costs if cost and cost.dollars_per_million_tokens]
    if len(prices) == 2 and report.costs is not None:
        change = f"{signed(100 * (prices[0] / prices[1] - 1), 0)} %, at {dollars_text(report.costs.dollars_per_hour)}/h"
        yield Saving("a million tokens", dollars_text(prices[0]), dollars_text(prices[1]), change)


def _open(report: Report) -> Iterator[OpenQuestion]:
    """A question a variant and kind, the smallest variant first: it has most to win."""
    for row in sorted(report.rows, key=lambda row: row.variant.bytes):
        if row.variant.name == report.baseline:
            continue
        found = {each.task: each for each in row.evaluations}
        compared = {task: found[task] for task in report.critical_tasks if task in found and found[task].comparison}
        if missing := [task for task in report.critical_tasks if task not in compared]:
            yield OpenQuestion(row.variant.name, f"not compared with the baseline on {', '.join(missing)}", "")
        undecided = [each for each in compared.values() if _verdict(each) == "UNDECIDED"]
        more = tuple(each for each in undecided if _needed(each))
        if more and row.overall != "FAIL":
            names = ", ".join(each.task for each in more)
            most = max(map(_needed, more))
            yield OpenQuestion(
                row.variant.name, f"{names}: about {most:,} items would decide", commands.decide(report, row, more)
            )
        if stuck := [each.task for each in undecided if not _needed(each)]:
            yield OpenQuestion(row.variant.name, f"{', '.join(stuck)}: more items will not decide", "")


def _verdict(evaluation: Evaluation) -> str | None:
    return evaluation.comparison.verdict if evaluation.comparison is not None else None


def _needed(evaluation: Evaluation) -> int:
    return (evaluation.comparison.items_to_decide or 0) if evaluation.comparison is not None else 0


def _cautions(report: Report, chosen: ReportRow | None) -> Iterator[Caution]:
    found = report.calibration
    if found is not None and found.verdict not in ("enough", "not_assessed"):
        users = [row.variant.name for row in report.rows if relies_on_calibration(row.variant.recipe)]
        whose = f"It bears on {', '.join(users)}" if users else "No variant of this run uses its ranges"
        if chosen is not None and chosen.variant.name not in users:
            whose += f"; {chosen.variant.name} does not use it" if users else ""
        what = "is not enough" if found.verdict == "more_samples" else "misses some traffic"
        yield Caution(f"The calibration text {what}: {headline(found)}. {whose}.", "calibration")
    for row in report.rows:
        if problem := problem_of(row.variant):
            yield Caution(f"{row.variant.name} is unverified: {problem}.", "ledger")
    failing = sorted({each.task for row in report.rows for each in row.evaluations if _base_fails(each.comparison)})
    if failing:
        which = f"{', '.join(failing)}: the base itself cannot do it, so that nothing can be lost and nothing is shown"
        yield Caution(f"{which}.", "tasks")
    for note in report.notes:
        section = "latency" if note.startswith("latency") or "latency" in note else "verdicts"
        yield Caution(f"{note[:1].upper()}{note[1:]}.", section)


def _base_fails(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.base_fails
