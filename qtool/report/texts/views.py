"""What the three renderings of a report share: the verdict matrix, the latency lines, the ledger totals."""

from collections import Counter
from dataclasses import dataclass

from qtool.records.evaluation import Evaluation, SliceScore
from qtool.records.report import Report, ReportRow
from qtool.records.variant import Recipe, Variant
from qtool.report.texts.numbers import count_text, date_text


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """A variant's ledger in one line: layers by scheme used, fallbacks with their reasons, worst weight error."""

    layers: int
    schemes: tuple[tuple[str, int], ...]
    fallbacks: int
    reasons: tuple[tuple[str, int], ...]
    worst_layer: str
    worst_weight_error: float | None
    bit_identical: str


def tasks_of(report: Report) -> tuple[str, ...]:
    """Every evaluated task: the critical ones first, then the others by name."""
    found = {entry.task for row in report.rows for entry in row.evaluations}
    return (*report.critical_tasks, *sorted(found - set(report.critical_tasks)))


def evaluation_of(row: ReportRow, task: str) -> Evaluation | None:
    """The evaluation of `row` on `task`, if there is one."""
    return next((entry for entry in row.evaluations if entry.task == task), None)


SMALL_SLICE = 20  # items: with fewer, an interval spans so much that a verdict on it says nothing


@dataclass(frozen=True, slots=True)
class SliceTable:
    """The slices of a task: (name, one cell a row of the report) pairs of those with enough items, then how many were
    folded and, for each row, the mean over their items with the number of them."""

    rows: tuple[tuple[str, tuple[SliceScore | None, ...]], ...]
    small: int
    means: tuple[str, ...]


def slice_table(report: Report, task: str) -> SliceTable:
    """The slices of `task`, those of fewer than 20 items folded into one line."""
    every = slices_of(report, task)
    large = tuple(entry for entry in every if any(part and part.score.items >= SMALL_SLICE for part in entry[1]))
    small = [cells for name, cells in every if name not in {name for name, _ in large}]
    means = []
    for index in range(len(report.rows)):
        parts = [cells[index].score for cells in small if cells[index] is not None]  # type: ignore[union-attr]
        count = sum(part.items for part in parts)
        mean = sum(part.value * part.items for part in parts) / count if count else 0.0
        shown = f"{100 * mean:.1f} %" if parts and parts[0].is_fraction else f"{mean:.4g}"
        means.append(f"{shown}, n {count:,}" if count else "")
    return SliceTable(large, len(small), tuple(means))


def slices_of(report: Report, task: str) -> tuple[tuple[str, tuple[SliceScore | None, ...]], ...]:
    """The slices of `task` as (name, one cell a row of the report) pairs, in the order they were evaluated."""
    tables = [
        {f"{part.slice} = {part.value}": part for part in found.slices} if found is not None else {}
        for found in (evaluation_of(row, task) for row in report.rows)
    ]
    names = dict.fromkeys(name for table in tables for name in table)
    return tuple((name, tuple(table.get(name) for table in tables)) for name in names)


def status(row: ReportRow, report: Report) -> str:
    """The word for the verdict column: baseline, PASS, FAIL or UNDECIDED."""
    return "baseline" if row.variant.name == report.baseline else row.overall or "UNDECIDED"


@dataclass(frozen=True, slots=True)
class BoundLevels:
    """How sure each bound of a difference is: `95 %` for most, and who is held to another level, in words or empty:
    `98.3 % for a, b (arithmetic)`. Rungs of a ladder share one level, and so do looks at one task."""

    common: str
    others: str


def bound_levels(report: Report) -> BoundLevels:
    """The levels that the comparisons of `report` were really made at."""
    found: dict[str, dict[str, list[str]]] = {}  # level -> variant -> tasks
    for row in report.rows:
        for entry in row.evaluations:
            if entry.comparison is not None:
                sure = f"{50 * (1 + entry.comparison.interval.confidence):.3g} %"
                found.setdefault(sure, {}).setdefault(row.variant.name, []).append(entry.task)
    if not found:
        return BoundLevels("95 %", "")
    common = max(found, key=lambda sure: sum(map(len, found[sure].values())))
    others = [
        f"{sure} for "
        + ", ".join(
            name + (f" ({', '.join(tasks)})" if any(name in found[level] for level in found if level != sure) else "")
            for name, tasks in by_variant.items()
        )
        for sure, by_variant in sorted(found.items())
        if sure != common
    ]
    return BoundLevels(common, "; ".join(others))


def recipe_text(recipe: Recipe) -> str:
    """A recipe in one line: `w4a16 by rtn, group 64, symmetric`."""
    if recipe.scheme == "base":
        return "as published"
    group = "per channel" if recipe.group_size == -1 else f"group {recipe.group_size}"
    parts = [f"{recipe.scheme} by {recipe.method}", group, "symmetric" if recipe.symmetric else "asymmetric"]
    if recipe.activations != "none":
        observer = f" ({recipe.observer})" if recipe.observer else ""
        parts.append(f"{recipe.activations} activations{observer}")
    return ", ".join([*parts, *(f"{name} {value}" for name, value in recipe.options)])


_TERMS = (
    ("by rtn", "rtn rounds every weight to the nearest grid point."),
    ("by gptq", "gptq rounds column by column and lets later columns make up for the error."),
    ("by awq", "awq scales the channels that matter before it rounds."),
    ("by smoothquant", "smoothquant moves outliers from activations into weights."),
    ("per channel", "Per channel: one scale for each row of outputs."),
    ("group ", "Group: columns of a weight that share a scale."),
    ("asymmetric", "Asymmetric grids have a zero point, symmetric ones have none."),
    ("static activations", "Static activations: their ranges were fixed by calibration."),
    ("dynamic activations", "Dynamic activations: their range is taken anew for each token."),
    ("(absmax)", "absmax takes the largest value as the range."),
)


def recipe_terms(report: Report) -> tuple[str, ...]:
    """The words of the recipes in the report, each explained in one sentence."""
    said = " ".join(recipe_text(row.variant.recipe) for row in report.rows)
    return tuple(explained for word, explained in _TERMS if word in said)


def ledger_totals(variant: Variant) -> LedgerTotals:
    """The ledger of `variant` added up."""
    layers = variant.layers
    worst = max(layers, key=lambda layer: layer.weight_error, default=None)
    reasons = Counter(layer.reason for layer in layers if layer.reason)
    verified = variant.verification
    return LedgerTotals(
        layers=len(layers),
        schemes=tuple(Counter(layer.scheme_used for layer in layers).most_common()),
        fallbacks=variant.fallbacks,
        reasons=tuple(reasons.most_common(5)),
        worst_layer=worst.layer if worst else "",
        worst_weight_error=worst.weight_error if worst else None,
        bit_identical=f"{verified.tensors_bit_identical} of {verified.tensors_compared}"
        if verified
        else "not verified",
    )


def churn_text(evaluation: Evaluation) -> str:
    """Changed answers against the noise floor: `7 of 500 (1.4 %); floor 0 of 500`."""
    churn = evaluation.churn
    if churn is None:
        return "not compared"
    changed = churn.harmful + churn.beneficial + churn.wrong_to_other_wrong
    text = f"{changed} of {churn.items} ({100 * changed / max(churn.items, 1):.1f} %)"
    if churn.floor_changed is None or not churn.floor_items:
        return f"{text}; floor not measured"
    text += f"; floor {churn.floor_changed} of {churn.floor_items}"
    multiple = churn.multiple_of_floor()
    if multiple is None or not changed:
        return text
    times, at_least = multiple
    if times is not None:
        return f"{text}, {times:.1f} times the floor"
    return f"{text}, at least {at_least:.1f} times it" if at_least >= 1 else text


def faults_text(evaluation: Evaluation) -> str:
    """Answers that were not merely wrong: `2 empty, 1 truncated`, or `none`."""
    faults = evaluation.faults
    counts = {
        "empty": faults.empty,
        "truncated": faults.truncated,
        "looping": faults.looping,
        "unparsable": faults.unparsable,
        "without an answer after thinking": faults.unanswered,
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def environment(report: Report) -> tuple[tuple[str, str], ...]:
    """Where the numbers come from, as (what, value) pairs; only what was recorded."""
    facts = [("run", report.run), ("command", report.command), ("qtool", report.qtool_version)]
    made = report.provenance
    if made is not None and made.started:
        facts.append(("begun", date_text(made.started)))
    base = report.rows[0].variant.base
    facts.append(("base model", f"{base.name} ({base.architecture}, {base.parameters:,} parameters, {base.dtype})"))
    facts.append(("base weights", f"sha256 {base.weights_digest}"))
    if base.revision:
        facts.append(("base revision", base.revision))
    machines = {row.latency.machine: None for row in report.rows if row.latency is not None}
    for machine in list(machines)[:1]:
        facts.append(("latency measured on", f"{machine.hardware} ({machine.device})"))
        facts.append(("threads", count_text(machine.threads, "thread")))
        facts.append(("torch", machine.torch_version))
    if made is not None:
        facts.append(("machine", made.hardware))
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in made.versions)))
    digests = ", ".join(f"{row.variant.name} {row.variant.weights_digest[:12]}" for row in report.rows)
    facts.append(("weights of each variant", f"sha256 {digests}"))
    engines = sorted({entry.engine for row in report.rows for entry in row.evaluations})
    seeds = sorted({entry.seed for row in report.rows for entry in row.evaluations})
    if engines:
        facts.append(("evaluation engine", ", ".join(engines)))
        facts.append(("evaluation seed", ", ".join(map(str, seeds))))
        facts.append(("questions asked", _asking(report)))
    return tuple(facts)


def _asking(report: Report) -> str:
    """Through the chat template, with plain prompts, or which task in which way."""
    chat = {entry.task: entry.chat for row in report.rows for entry in row.evaluations}
    ways = {True: "through the model's chat template", False: "with plain prompts"}
    if len(set(chat.values())) == 1:
        return ways[next(iter(chat.values()))]
    return "; ".join(f"{', '.join(t for t, c in chat.items() if c is way)} {ways[way]}" for way in (True, False))
