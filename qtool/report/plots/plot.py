"""What a plot is: a Vega-Lite specification with its words and its data table, and the style that all share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]

WIDTH = 720  # pixels of a file; on the page a plot is as wide as its column
# colours by the name of the page's CSS variable, which decides between light and dark
INK, SOFT, LINE, CARD = "var(--ink)", "var(--soft)", "var(--line)", "var(--card)"
VERDICTS = {"PASS": "var(--pass)", "FAIL": "var(--fail)", "UNDECIDED": "var(--undecided)", "baseline": "var(--plain)"}
SERIES = tuple(f"var(--s{index})" for index in range(8))
_AUTOSIZE = {"type": "fit-x", "contains": "padding"}  # axes inside of the width; the height follows the rows
_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif'


@dataclass(frozen=True, slots=True, eq=False)
class Plot:
    """`alt` says what the plot shows to who does not see it; `head` and `rows` are the same numbers as a table."""

    kind: str
    title: str
    caption: str
    alt: str
    spec: Spec
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def whole(layers: Sequence[Spec], data: Sequence[dict[str, object]], *, height: object, **more: object) -> Spec:
    """A specification of several layers over one table."""
    return {
        "data": {"values": list(data)},
        "height": height,
        "autosize": _AUTOSIZE,
        "layer": list(layers),
        "config": _config(),
        **more,
    }


def by_variant(names: Sequence[str]) -> Spec:
    """The colour of a variant, the same in every plot of a report."""
    return {
        "field": "variant",
        "type": "nominal",
        "scale": {"domain": list(names), "range": [SERIES[index % len(SERIES)] for index in range(len(names))]},
        "legend": {"title": None, "symbolOpacity": 1},
    }


def by_verdict() -> Spec:
    """The colour of a verdict."""
    return {
        "field": "verdict",
        "type": "nominal",
        "scale": {"domain": list(VERDICTS), "range": list(VERDICTS.values())},
        "legend": {"title": None, "columns": 4},
    }


def amount(field: str, title: str, **axis: object) -> Spec:
    """A measured quantity on an axis called `title`."""
    return {"field": field, "type": "quantitative", "title": title, "axis": axis}


def told() -> Spec:
    """What is read out of a mark: its sentence."""
    return {"field": "about", "type": "nominal"}


def chooser(name: str, choices: Sequence[str]) -> Spec:
    """A list to choose from, above the plot; the first is shown in files."""
    bind = {"input": "select", "options": list(choices), "name": f"{name} "}
    return {"name": name, "value": choices[0], "bind": bind}


def _config() -> Spec:
    words = {"labelColor": SOFT, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12.5, "titleFontWeight": 500}
    axis = {"gridColor": LINE, "domainColor": SOFT, "tickColor": SOFT, "labelLimit": 220, "titlePadding": 8}
    return {
        "font": _FONT,
        "background": CARD,
        "view": {"stroke": None},
        "axis": {**words, **axis},
        "legend": {**words, "orient": "bottom", "columns": 3, "symbolLimit": 40, "labelLimit": 220},
        "text": {"color": INK, "fontSize": 12},
    }
