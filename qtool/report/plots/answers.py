"""Accuracy by slice, and how many answers changed."""

import math

from qtool.records.evaluation import SliceScore
from qtool.records.report import Report, ReportRow
from qtool.report.plots.plot import Plot, amount, by_variant, chooser, told, whole
from qtool.report.texts.numbers import interval_text, signed
from qtool.report.texts.views import SMALL_SLICE, churn_text, tasks_of

_MOST_SLICES = 10
_ROW = 11  # pixels of height for one variant of one slice


def slices(report: Report) -> Plot | None:
    """Difference to the baseline [x] of each slice [y] that has enough items; one task at a time."""
    order = _variants(report)
    points = [
        point
        for row in report.rows
        for each in row.evaluations
        for part in each.slices
        if (point := _slice_point(row, each.task, part)) is not None
    ]
    if not points:
        return None
    points.sort(key=lambda point: order.index(str(point["variant"])))
    worst = _worst_slices(points)
    drawn = [point for point in points if point["slice"] in worst[str(point["task"])]]
    tasks = [task for task in tasks_of(report) if any(point["task"] == task for point in points)]
    x = amount("change", "difference to the baseline, points", tickCount=8)
    y = {"field": "slice", "type": "nominal", "title": None, "sort": {"field": "change", "op": "min"}}
    offset = {"yOffset": {"field": "variant", "sort": None}}
    colour = by_variant(order)
    layers = [
        {
            "data": {"values": [{"at": 0}]},
            "mark": {"type": "rule", "color": "var(--soft)", "aria": False},
            "encoding": {"x": {"field": "at", "type": "quantitative"}},
        },
        {
            "mark": {"type": "rule", "strokeWidth": 1.5, "aria": False},
            "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour, **offset},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 46, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "tooltip": told(), "description": told(), **offset},
        },
    ]
    shown = {"params": [chooser("task", tasks)], "transform": [{"filter": "datum.task == task"}]}
    return Plot(
        kind="slices",
        title="Accuracy by slice",
        caption="Each line is the interval between the one-sided bounds of the difference on the items of one slice. "
        f"Shown are the {_MOST_SLICES} slices of a task that lost most; none has fewer than {SMALL_SLICE} items.",
        alt=f"Intervals of the difference to the baseline for the slices of {', '.join(tasks)}; numbers in the table.",
        spec=whole(layers, drawn, height=_height(max(map(len, worst.values())), report), **shown),
        head=("task", "slice", "variant", "difference, points", "bounds", "n"),
        rows=tuple(
            tuple(str(point[key]) for key in ("task", "slice", "variant", "change_words", "bounds", "n"))
            for point in points
        ),
    )


def churn(report: Report) -> Plot | None:
    """Share of items that went from right to wrong [left] and from wrong to right [right], for each task [y]."""
    points = []
    rows = []
    for row in report.rows:
        for each in row.evaluations:
            found = each.churn
            if found is None:
                continue
            counts = (("right to wrong", -1, found.harmful), ("wrong to right", 1, found.beneficial))
            for word, sign, count in counts:
                share = 100 * count / max(found.items, 1)
                points.append(
                    {
                        "task": each.task,
                        "variant": row.variant.name,
                        "what": word,
                        "share": sign * share,
                        "about": f"{row.variant.name}, {each.task}: {count} of {found.items} items {word}",
                    }
                )
            rows.append((each.task, row.variant.name, str(found.harmful), str(found.beneficial),
                         str(found.wrong_to_other_wrong), churn_text(each)))  # fmt: skip
    if not points:
        return None
    colour = {
        "field": "what",
        "type": "nominal",
        "scale": {"domain": ["right to wrong", "wrong to right"], "range": ["var(--fail)", "var(--pass)"]},
        "legend": {"title": None},
    }
    layers = [
        {
            "mark": {"type": "bar", "height": _ROW - 3},
            "encoding": {
                "x": amount("share", "share of the items, % (left: right to wrong)", tickCount=8),
                "y": {"field": "task", "type": "nominal", "title": None, "sort": None},
                "yOffset": {"field": "variant", "sort": None},
                "color": colour,
                "tooltip": told(),
                "description": told(),
            },
        },
        {
            "data": {"values": [{"at": 0}]},
            "mark": {"type": "rule", "color": "var(--soft)", "aria": False},
            "encoding": {"x": {"field": "at", "type": "quantitative"}},
        },
    ]
    order = ", ".join(name for name in _variants(report) if name != report.baseline)
    return Plot(
        kind="churn",
        title="Answers that changed",
        caption=f"In each task from top to bottom: {order}. Churn is every answer that differs from the baseline's; "
        "the floor in the table is how many the baseline changes against itself.",
        alt="Bars of the share of items that went from right to wrong and from wrong to right; numbers in the table.",
        spec=whole(layers, points, height=_height(len({each[0] for each in rows}), report)),
        head=("task", "variant", "right to wrong", "wrong to right", "wrong to other wrong", "all changed"),
        rows=tuple(rows),
    )


def _worst_slices(points: list[dict[str, object]]) -> dict[str, set[str]]:
    """For each task the slices in which some variant lost most."""
    lowest: dict[str, dict[str, float]] = {}
    for point in points:
        found = lowest.setdefault(str(point["task"]), {})
        name = str(point["slice"])
        found[name] = min(found.get(name, math.inf), float(str(point["change"])))
    return {task: set(sorted(found, key=found.__getitem__)[:_MOST_SLICES]) for task, found in lowest.items()}


def _height(groups: int, report: Report) -> int:
    """Pixels for a line a variant in each of `groups`, with some air between them."""
    return _ROW * groups * max(len(report.rows), 2)


def _variants(report: Report) -> list[str]:
    return [row.variant.name for row in report.rows]


def _slice_point(row: ReportRow, task: str, part: SliceScore) -> dict[str, object] | None:
    if part.difference is None or part.baseline is None or part.score.items < SMALL_SLICE or not part.score.is_fraction:
        return None
    change = 100 * (part.score.value - part.baseline.value)
    name = f"{part.slice} = {part.value}"
    bounds = interval_text(part.difference, 100)
    return {
        "task": task,
        "slice": name,
        "variant": row.variant.name,
        "change": change,
        "low": 100 * part.difference.low,
        "high": 100 * part.difference.high,
        "change_words": signed(change),
        "bounds": bounds,
        "n": part.score.items,
        "about": f"{row.variant.name}, {name}: {signed(change)} points {bounds}, n {part.score.items}",
    }
