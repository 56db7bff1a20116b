"""report.html: one self-contained page that opens offline; every string from outside is escaped."""

from functools import lru_cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from qtool.records.calibration import Calibration
from qtool.records.evaluation import Evaluation
from qtool.records.report import FlippedItem, Report
from qtool.report import commands, flips
from qtool.report.choose import why_not
from qtool.report.decision import decision
from qtool.report.drawing import certificate, whisker
from qtool.report.judge import margin_use
from qtool.report.plots import drawn, library
from qtool.report.plots.kinds import plots_of
from qtool.report.plots.plot import Plot
from qtool.report.texts import numbers, overview, views

_QUANTILES = (0.5, 0.9, 0.95, 0.99)
_LONGEST_WORD = 30  # characters of a command that are kept on one line, also on a phone
_OPEN = 6  # flipped items shown at first
_FLIP_WORDS = {
    "harmful": "right to wrong",
    "beneficial": "wrong to right",
    "wrong to other wrong": "wrong to other wrong",
}
_FLIP_LOOKS = {"harmful": "fail", "beneficial": "pass", "wrong to other wrong": "plain"}


def page(report: Report) -> str:
    """The whole page as text: style, plots and scripts inline, no address outside itself.

    Where the drawing package is missing the page has the same numbers as tables, and says so.
    """
    plots = plots_of(report) if drawn.can_draw() else {}
    text = _environment().get_template("page.html.j2").render(
        report=report,
        css=Markup(_file("page.css")),  # our own files, not user text
        script=Markup(_file("page.js")),
        vega=Markup(library.script()) if plots else Markup(""),
        plots=plots,
        can_draw=drawn.can_draw(),
        missing_plots=drawn.MISSING,
        base=report.rows[0].variant.base,
        decision=decision(report),
        sections=_sections(report),
        overview=overview.overview(report),
        turned_down=why_not(report),
        recipe_terms=views.recipe_terms(report),
        tasks=views.tasks_of(report),
        levels=views.bound_levels(report),
        certificate=section(report.calibration) if report.calibration else Markup(""),
        quantiles=_measured_quantiles(report),
        environment=views.environment(report),
        behind=commands.behind(report),
        **_of_flips(report),
    )  # fmt: skip
    return str(text)


def section(calibration: Calibration) -> Markup:
    """The certificate as a part of the page; empty where none was recorded."""
    found = certificate.values(calibration)
    return Markup(_environment().get_template("certificate.html.j2").render(**found)) if found else Markup("")


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("qtool.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update({name: getattr(numbers, name) for name in _NUMBER_FUNCTIONS})
    environment.globals.update({name: getattr(views, name) for name in _VIEW_FUNCTIONS})
    environment.globals.update(
        looks={name: look for name, look in whisker.VERDICT_CLASSES.items() if name},
        breakable=_breakable,
        dotted=_dotted,
        page_svg=_picture,
        live=_specification,
        whisker=_whisker,
        small_slice=views.SMALL_SLICE,
        shared_start=flips.shared_start,
        least_lead=_least_lead,
    )
    return environment


def _file(name: str) -> str:
    return files("qtool.report").joinpath("page", name).read_text(encoding="utf-8")


_NUMBER_FUNCTIONS = (
    "bytes_text",
    "count_text",
    "date_text",
    "difference_text",
    "dollars_text",
    "interval_text",
    "item_ms_text",
    "large_text",
    "margin_text",
    "ms_text",
    "quantile",
    "quantile_text",
    "seconds_text",
    "span_text",
    "value_text",
)
_VIEW_FUNCTIONS = ("churn_text", "evaluation_of", "faults_text", "ledger_totals", "recipe_text", "slice_table")


def _dotted(name: str) -> Markup:
    """A module's name that breaks after its dots."""
    return Markup(".<wbr>").join(Markup.escape(word) for word in name.split("."))


def _breakable(command: str) -> Markup:
    """A command that breaks between its words only: a browser breaks after every hyphen too."""
    lines = [Markup(" ").join(_whole(word) for word in line.split(" ")) for line in command.split("\n")]
    return Markup("\n").join(lines)


def _whole(word: str) -> Markup:
    return (
        Markup('<span class="word">{}</span>').format(word) if len(word) <= _LONGEST_WORD else Markup("{}").format(word)
    )


def _picture(plot: Plot) -> Markup:
    return Markup(drawn.page_svg(plot))  # vl-convert escapes what it writes


def _specification(plot: Plot) -> Markup:
    return Markup(drawn.live(plot))


def _whisker(task: str, evaluation: Evaluation) -> Markup:
    assert evaluation.comparison is not None  # the template asks only where there is one
    look = whisker.VERDICT_CLASSES[evaluation.comparison.verdict]
    return whisker.whisker(margin_use(task, evaluation.comparison), look)


def _sections(report: Report) -> tuple[tuple[str, str], ...]:
    """The contents list: (anchor, title) of every section that is there."""
    has = {"tasks": bool(views.tasks_of(report)), "flips": bool(report.flips), "cost": report.costs is not None}
    titles = (
        ("decision", "Decision"),
        ("verdicts", "Verdicts"),
        ("tradeoff", "Trade-off"),
        ("tasks", "Tasks and slices"),
        ("flips", "Flipped items"),
        ("latency", "Latency"),
        ("cost", "Cost"),
        ("calibration", "Calibration"),
        ("ledger", "How each was made"),
        ("provenance", "Provenance"),
    )
    return tuple((name, title) for name, title in titles if has.get(name, True))


def _of_flips(report: Report) -> dict[str, object]:
    slices = {f"{name} = {value}": None for flip in report.flips for name, value in flip.slices}
    churns = [each.churn for row in report.rows for each in row.evaluations if each.churn is not None]
    kinds = list(_FLIP_WORDS)
    best = report.recommendation.variant
    order = sorted(report.flips, key=lambda flip: (kinds.index(flip.kind), flip.variant != best))
    return {
        "flips_sorted": order,
        "flips_shown": flips.MOST_SHOWN,
        "flips_open": _OPEN,
        "flips_total": sum(each.harmful + each.beneficial + each.wrong_to_other_wrong for each in churns),
        "flip_words": _FLIP_WORDS,
        "flip_looks": _FLIP_LOOKS,
        "flip_filters": (
            ("variant", "variant", tuple(dict.fromkeys(flip.variant for flip in report.flips))),
            ("task", "task", tuple(dict.fromkeys(flip.task for flip in report.flips))),
            ("kind", "kind", tuple(dict.fromkeys(flip.kind for flip in report.flips))),
            ("slice", "slice", tuple(sorted(slices))),
        ),
    }


def _least_lead(flip: FlippedItem) -> str:
    """The smaller of the two leads: how sure both models were; empty where one is not known."""
    if flip.baseline_lead is None or flip.variant_lead is None:
        return ""
    return f"{min(flip.baseline_lead, flip.variant_lead):.3f}"


def _measured_quantiles(report: Report) -> tuple[float, ...]:
    found = {
        entry.q
        for row in report.rows
        if row.latency is not None
        for level in row.latency.levels
        for entry in (*level.ttft, *level.tpot, *level.itl, *level.e2e)
    }
    return tuple(sorted(found)) or _QUANTILES
