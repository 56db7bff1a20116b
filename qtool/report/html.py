"""report.html: one self-contained page that opens offline; every string from outside is escaped."""

from functools import partial
from importlib.resources import files

from markupsafe import Markup

from qtool.records.evaluation import Evaluation
from qtool.records.report import Report
from qtool.report.drawing import certificate, plot
from qtool.report.judge import margin_use
from qtool.report.texts import numbers, views

_QUANTILES = (0.5, 0.9, 0.95, 0.99)


def page(report: Report) -> str:
    """The whole page as text: style and drawings inline, no script, no address outside itself."""
    from jinja2 import Environment, StrictUndefined

    source = files("qtool.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    css = files("qtool.report").joinpath("page.css").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source).render(
        report=report,
        css=Markup(css),  # our own file, not user text
        base=report.rows[0].variant.base,
        tasks=views.tasks_of(report),
        levels=views.bound_levels(report),
        looks={name: look for name, look in plot.VERDICT_CLASSES.items() if name},
        tradeoff=plot.tradeoff(report),
        speed_span=partial(numbers.speed_span, report.rows[0].latency),
        load_curve=plot.load_curve(report),
        whisker=_whisker,
        certificate=certificate.section(report.calibration) if report.calibration else Markup(""),
        quantiles=_measured_quantiles(report),
        environment=views.environment(report),
        **{name: getattr(numbers, name) for name in _NUMBER_FUNCTIONS},
        **{name: getattr(views, name) for name in _VIEW_FUNCTIONS},
    )


_NUMBER_FUNCTIONS = (
    "bytes_text",
    "count_text",
    "difference_text",
    "interval_text",
    "item_ms_text",
    "margin_text",
    "median",
    "ms_text",
    "quantile",
    "quantile_text",
    "score_text",
    "span_text",
    "value_text",
)
_VIEW_FUNCTIONS = ("churn_text", "evaluation_of", "faults_text", "ledger_totals", "recipe_text", "slices_of", "status")


def _whisker(task: str, evaluation: Evaluation) -> Markup:
    assert evaluation.comparison is not None  # the template asks only where there is one
    look = plot.VERDICT_CLASSES[evaluation.comparison.verdict]
    return plot.whisker(margin_use(task, evaluation.comparison), look)


def _measured_quantiles(report: Report) -> tuple[float, ...]:
    found = {
        entry.q
        for row in report.rows
        if row.latency is not None
        for level in row.latency.levels
        for entry in (*level.ttft, *level.tpot, *level.itl, *level.e2e)
    }
    return tuple(sorted(found)) or _QUANTILES
