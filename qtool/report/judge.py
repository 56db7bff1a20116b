"""How far a variant used up the margin on its worst critical task."""

from dataclasses import dataclass

from qtool.records.evaluation import Comparison
from qtool.records.report import ReportRow


@dataclass(frozen=True, slots=True)
class MarginUse:
    """Change on one task divided by its margin: 0 is like the base, −1 is the whole margin lost; a ratio."""

    task: str
    change: float
    low: float
    high: float


def worst_margin_use(row: ReportRow, critical: tuple[str, ...]) -> MarginUse | None:
    """The critical task whose lower bound used most of its margin; for the baseline no change at all."""
    if row.variant.recipe.scheme == "base":
        return MarginUse("", 0.0, 0.0, 0.0)
    used = [
        margin_use(entry.task, entry.comparison)
        for entry in row.evaluations
        if entry.comparison is not None and entry.task in critical
    ]
    return min(used, key=lambda use: use.low, default=None)


def margin_use(task: str, comparison: Comparison) -> MarginUse:
    """`comparison` as shares of its margin. Better is up for every metric: the evaluation has turned the sign."""
    margin = comparison.margin
    return MarginUse(
        task, comparison.difference / margin, comparison.interval.low / margin, comparison.interval.high / margin
    )
