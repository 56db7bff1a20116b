"""The trade-off: what a variant loses at worst, against its time, its memory or its cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from qtool.records.report import Report, ReportRow
from qtool.report.decision import cost_at, highest_level
from qtool.report.judge import worst_margin_use
from qtool.report.money.fit import footprint
from qtool.report.plots.plot import CARD, INK, SOFT, Plot, Spec, amount, by_verdict, told, whole
from qtool.report.texts.numbers import bytes_text, dollars_text, median, ms_text, signed
from qtool.report.texts.views import status

_HEIGHT, _PLOT_WIDTH = 340, 620.0
_TICKS = (-200, -100, -50, -20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5)
_OFFSETS = (-12.0, 12.0, -27.0, 27.0, -42.0, 42.0, -57.0, 57.0)  # pixels below the point
_LINE, _NEAR = 15.0, 100.0  # pixels: height of a label, and how far to the side one still meets another


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a variant lies along the lower axis, with its interval and in words."""

    value: float
    low: float
    high: float
    words: str


def against_time(report: Report) -> Plot | None:
    """Against the median time of one request at the lowest load."""
    return _tradeoff(report, "tradeoff", "time", "median time of a request, ms (left is faster)", _time)


def against_memory(report: Report) -> Plot | None:
    """Against what one instance holds."""
    title = "weights and cache of one instance, MB (left is smaller)"
    return _tradeoff(report, "tradeoff-memory", "memory", title, _memory)


def against_cost(report: Report) -> Plot | None:
    """Against dollars per million good tokens at the highest load."""
    title = "dollars per million good tokens at the highest load (left is cheaper)"
    return _tradeoff(report, "tradeoff-cost", "cost", title, lambda row: _cost(report, row))


def _time(row: ReportRow) -> _Place | None:
    found = median(row.latency)
    if found is None or found.value_ms is None:
        return None
    span = found.interval
    low, high = (span.low, span.high) if span is not None else (found.value_ms, found.value_ms)
    return _Place(found.value_ms, low, high, ms_text(found.value_ms))


def _memory(row: ReportRow) -> _Place | None:
    if row.latency is None or not row.latency.weight_bytes:
        return None
    held = footprint(row.latency).bytes
    return _Place(held / 1e6, held / 1e6, held / 1e6, bytes_text(held))


def _cost(report: Report, row: ReportRow) -> _Place | None:
    found = cost_at(report, row.variant.name, highest_level(row))
    if found is None or found.dollars_per_million_tokens is None:
        return None
    value = found.dollars_per_million_tokens
    return _Place(value, value, value, f"{dollars_text(value)} per million tokens")


def _tradeoff(
    report: Report, kind: str, word: str, title: str, place_of: Callable[[ReportRow], _Place | None]
) -> Plot | None:
    points = [point for row in report.rows if (point := _point(report, row, place_of(row))) is not None]
    if len(points) < 2:
        return None
    _put_labels(points)
    head = ("variant", word, "worst task", "change in margins", "bounds", "verdict", "on the front")
    keys = ("variant", "words", "task", "change_words", "bounds", "verdict", "front")
    rows = tuple(tuple(str(point[key]) for key in keys) for point in points)
    return Plot(
        kind=kind,
        title=f"Accuracy against {word}",
        caption="Up is better, left is cheaper. Height is the change on the variant's worst critical task, counted in "
        "margins: 0 is like the baseline, −1 has lost the whole margin. The upright line is the interval between the "
        "one-sided bounds; a variant passes where it stays above −1. The grey line joins the front: variants that no "
        "other one beats. Far from zero the scale is logarithmic.",
        alt=f"Scatter plot of {len(points)} variants. " + "; ".join(str(point["about"]) for point in points) + ".",
        spec=_spec(points, title),
        head=head,
        rows=rows,
    )


def _point(report: Report, row: ReportRow, place: _Place | None) -> dict[str, object] | None:
    use = worst_margin_use(row, report.critical_tasks)
    if use is None or place is None:
        return None
    verdict = status(row, report)
    change = signed(use.change, 2)
    return {
        "variant": row.variant.name,
        "x": place.value,
        "x_low": place.low,
        "x_high": place.high,
        "change": use.change,
        "low": use.low,
        "high": use.high,
        "words": place.words,
        "task": use.task or "none",
        "change_words": change,
        "bounds": f"[{signed(use.low, 2)}, {signed(use.high, 2)}]",
        "verdict": verdict,
        "front": "yes" if row.on_front else "no",
        "about": f"{row.variant.name}: {place.words}, {bytes_text(row.variant.bytes)}, {verdict}, change {change} "
        f"margins [{signed(use.low, 2)}, {signed(use.high, 2)}] on {use.task or 'itself'}",
    }


def _put_labels(points: list[dict[str, object]]) -> None:
    """Gives each point `label_y`, in the plot's own units of height: beside the point where its name meets no other
    name and no other point."""
    low, high = _ends(points)
    left = min(_of(point, "x") for point in points)
    width = max(_of(point, "x") for point in points) - left or 1.0
    scale = _HEIGHT / (_bend(high) - _bend(low))
    places = [
        (_PLOT_WIDTH * (_of(point, "x") - left) / width, scale * (_bend(high) - _bend(_of(point, "change"))))
        for point in points
    ]
    taken: list[tuple[float, float]] = []
    for point, (x, y) in zip(points, places, strict=True):
        others = [(x2, y2) for x2, y2 in places if x < x2 < x + _NEAR]  # a name stands right of its point

        def meets(offset: float, x: float = x, y: float = y, others: list[tuple[float, float]] = others) -> int:
            return sum(abs(x - x2) < _NEAR and abs(y + offset - y2) < _LINE for x2, y2 in (*taken, *others))

        best = min(_OFFSETS, key=lambda offset: (meets(offset), abs(offset)))
        taken.append((x, y + best))
        point["label_y"] = _unbend(_bend(high) - (y + best) / scale)


def _of(point: dict[str, object], key: str) -> float:
    return float(str(point[key]))


def _ends(points: list[dict[str, object]]) -> tuple[float, float]:
    low = min(-1.6, *(_of(point, "low") for point in points))
    return low * 1.15, max(0.6, *(_of(point, "high") for point in points)) * 1.3


def _bend(value: float) -> float:
    """Vega's symlog with constant 1."""
    return math.copysign(math.log1p(abs(value)), value)


def _unbend(value: float) -> float:
    return math.copysign(math.expm1(abs(value)), value)


def _spec(points: list[dict[str, object]], title: str) -> Spec:
    low, high = _ends(points)
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    scale = {"type": "symlog", "constant": 1, "domain": [low, high], "nice": False}
    up = amount(
        "change",
        "change on the worst critical task, in margins",
        values=ticks,
        labelExpr="datum.value == 0 ? '0' : format(datum.value, '+~g')",
    )
    y = {**up, "scale": scale}
    x = {**amount("x", title, tickCount=6, grid=False), "scale": {"zero": False, "nice": True, "padding": 34}}
    margin = {"data": {"values": [{"at": -1, "words": "the margin"}]}}
    at = {"y": {"field": "at", "type": "quantitative", "scale": scale}}
    front = {"filter": "datum.front == 'yes'"}
    layers: list[Spec] = [
        {
            **margin,
            "mark": {"type": "rule", "color": "var(--fail)", "strokeDash": [5, 4], "aria": False},
            "encoding": at,
        },
        {
            **margin,
            "mark": {
                "type": "text",
                "color": "var(--fail)",
                "align": "right",
                "dy": -7,
                "fontSize": 11,
                "x": "width",
                "aria": False,
            },
            "encoding": {**at, "text": {"field": "words"}},
        },
        {"data": {"values": [{"at": 0}]}, "mark": {"type": "rule", "color": SOFT, "aria": False}, "encoding": at},
        {
            "transform": [front],
            "mark": {"type": "line", "color": SOFT, "strokeWidth": 1.5, "opacity": 0.55, "aria": False},
            "encoding": {"x": x, "y": y, "order": {"field": "x"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": by_verdict()},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {"x": {**x, "field": "x_low"}, "x2": {"field": "x_high"}, "y": y, "color": by_verdict()},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 150, "stroke": CARD, "strokeWidth": 1.5, "opacity": 1},
            "encoding": {
                "x": x,
                "y": y,
                "color": by_verdict(),
                "tooltip": told(),
                "description": told(),
            },
        },
        _names(x, y, {"stroke": CARD, "strokeWidth": 4, "strokeJoin": "round"}),
        _names(x, y, {"color": INK}),
    ]
    return whole(layers, points, height=_HEIGHT)


def _names(x: Spec, y: Spec, look: Spec) -> Spec:
    """The variants' names beside their points; drawn twice, first as an outline that keeps lines off."""
    mark = {"type": "text", "align": "left", "dx": 9, "fontWeight": 600, "aria": False, **look}
    return {"mark": mark, "encoding": {"x": x, "y": {**y, "field": "label_y"}, "text": {"field": "variant"}}}
