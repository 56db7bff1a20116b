"""Every kind of plot, by name."""

from collections.abc import Callable

from qtool.records.report import Report
from qtool.report.plots import answers, layers, load, tradeoff
from qtool.report.plots.plot import Plot

KINDS: dict[str, Callable[[Report], Plot | None]] = {
    "tradeoff": tradeoff.against_time,
    "tradeoff-memory": tradeoff.against_memory,
    "tradeoff-cost": tradeoff.against_cost,
    "latency": load.latency,
    "throughput": load.throughput,
    "slices": answers.slices,
    "churn": answers.churn,
    "calibration": layers.calibration,
    "sensitivity": layers.sensitivity,
}


def plots_of(report: Report) -> dict[str, Plot]:
    """Every plot that the report has the numbers for."""
    found = {kind: draw(report) for kind, draw in KINDS.items()}
    return {kind: plot for kind, plot in found.items() if plot is not None}
