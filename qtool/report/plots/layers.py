"""What calibration found of each input, and what rounding costs each layer."""

from collections.abc import Sequence

from qtool.records.certificate import RANGE_TOLERANCE, Certificate, LayerCertificate
from qtool.records.report import Report
from qtool.report.drawing.certificate import worst_first
from qtool.report.plots.plot import SERIES, Plot, Spec, amount, by_variant, chooser, told, whole

NAMED = 4  # inputs that get a colour and a name; the others are drawn thin
_SHOWN = 24  # layers of the sensitivity plot
_OTHERS = "other inputs"
_COLUMNS = ("observer", "input", "sequences", "range", "span")


def calibration(report: Report) -> Plot | None:
    """Each range as a share of its final value [y] against the sequences that made it [x]; None without a curve."""
    certificate = report.calibration.certificate if report.calibration is not None else None
    return None if certificate is None else convergence(certificate)


def convergence(certificate: Certificate) -> Plot | None:
    """The plot of one certificate; the worst inputs are named."""
    order = worst_first(certificate)
    points = [point for layer in order for point in _curve(layer)]
    if not points:
        return None
    observers = list(dict.fromkeys(str(point["observer"]) for point in points))
    names = [short(layer.input) for layer in order[:NAMED]]
    for point in points:
        point["name"] = point["input"] if point["input"] in names else _OTHERS
    ends = [point for point in points if point["last"]]
    return Plot(
        kind="calibration",
        title="Have the ranges settled?",
        caption="Each line is the range of one input as more sequences made it. The band is "
        f"±{100 * RANGE_TOLERANCE:g} %, the change that counts as settled. At the end stands the 95 % bootstrap "
        "interval of the named ones. A maximum (absmax) of a heavy tail keeps growing and is judged by the energy it "
        "cuts off, not by its band.",
        alt=f"Line plot of {len(order)} ranges over the number of sequences, one observer at a time "
        f"({', '.join(observers)}); the worst inputs are {', '.join(names)}.",
        spec=_curves(points, observers, names),
        head=("observer", "input", "sequences", "range", "interval"),
        rows=tuple(tuple(str(point[key]) for key in _COLUMNS) for point in ends),
    )


def sensitivity(report: Report) -> Plot | None:
    """What rounding costs each layer: KL where it was measured, else the error of its output or of its weights."""
    points = [
        {"layer": short(unit.layers[0]), "variant": found.recipe.scheme, "cost": unit.kl_alone}
        for found in report.sensitivities
        for unit in found.units
    ]
    what = "KL divergence when this layer alone is rounded, nats a token"
    if not points:
        what, points = _from_ledgers(report)
    if not points:
        return None
    worst: dict[str, float] = {}
    for point in points:
        name = str(point["layer"])
        worst[name] = max(worst.get(name, 0.0), float(str(point["cost"])))
    names = sorted(worst, key=lambda name: -worst[name])[:_SHOWN]
    shown: list[dict[str, object]] = [
        {**point, "about": f"{point['variant']}, {point['layer']}: {float(str(point['cost'])):.3g}"}
        for point in points
        if point["layer"] in names
    ]
    # the colour of a variant is the same in every plot; a measured sensitivity is of a scheme, of no variant
    series = list(dict.fromkeys(str(point["variant"]) for point in shown))
    if not report.sensitivities:
        series = [row.variant.name for row in report.rows]
    encoding = {
        "x": amount("cost", what, tickCount=6),
        "y": {"field": "layer", "type": "nominal", "title": None, "sort": names},
        "color": by_variant(series),
        "tooltip": told(),
        "description": told(),
    }
    mark = {"type": "point", "filled": True, "size": 60, "opacity": 0.9}
    return Plot(
        kind="sensitivity",
        title="Sensitivity of each layer",
        caption=f"The {len(names)} layers that cost most, worst first: {what}."
        + ("" if report.sensitivities else " `qtool sensitivity` measures the KL divergence of each layer."),
        alt=f"Dots of the cost of rounding for {len(names)} layers; the worst is {names[0]}.",
        spec=whole([{"mark": mark, "encoding": encoding}], shown, height=17 * len(names)),
        head=("layer", "variant", "cost"),
        rows=tuple((str(each["layer"]), str(each["variant"]), f"{float(str(each['cost'])):.3g}") for each in shown),
    )


def _from_ledgers(report: Report) -> tuple[str, list[dict[str, object]]]:
    rows = [(row.variant.name, layer) for row in report.rows for layer in row.variant.layers]
    rows = [(name, layer) for name, layer in rows if layer.method_used not in ("none", "kept")]
    outputs = [
        {"layer": short(layer.layer), "variant": name, "cost": layer.output_error}
        for name, layer in rows
        if layer.output_error is not None
    ]
    if outputs:
        return "relative error of the layer's output on held-out text", outputs
    weights = [
        {"layer": short(layer.layer), "variant": name, "cost": layer.weight_error}
        for name, layer in rows
        if layer.weight_error > 0
    ]
    return "relative error of the weights, ‖W − Q(W)‖ / ‖W‖", list(weights)


def _curve(layer: LayerCertificate) -> list[dict[str, object]]:
    name = short(layer.input)
    return [
        {
            "observer": found.observer,
            "input": name,
            "sequences": point.sequences,
            "share": point.high / found.high,
            "low": found.interval_low / found.high,
            "high": found.interval_high / found.high,
            "last": point is found.curve[-1],
            "range": f"{found.high:.4g}",
            "span": f"[{found.interval_low:.4g}, {found.interval_high:.4g}]",
            "about": f"{name}: {point.high:.3g} after {point.sequences} sequences",
        }
        for found in layer.ranges
        if len(found.curve) > 1 and found.high > 0
        for point in found.curve
    ]


def _curves(points: list[dict[str, object]], observers: Sequence[str], names: Sequence[str]) -> Spec:
    loads = sorted({int(str(point["sequences"])) for point in points})
    x = {**amount("sequences", "sequences that made the range", values=loads, grid=False),
         "scale": {"type": "log", "base": 2, "nice": False, "padding": 12}}  # fmt: skip
    y = {**amount("share", "range, as a share of the final one", tickCount=6), "scale": {"zero": False}}
    domain = [*names, _OTHERS]
    scale = {"domain": domain, "range": [*SERIES[: len(names)], "var(--plain)"]}
    colour = {"field": "name", "type": "nominal", "scale": scale, "legend": {"title": None, "columns": 2}}
    quiet = {"condition": {"test": f"datum.name == '{_OTHERS}'", "value": 0.28}, "value": 1}
    band = [{"bottom": 1 - RANGE_TOLERANCE, "top": 1 + RANGE_TOLERANCE}]
    named = {"filter": f"datum.name != '{_OTHERS}' && datum.last"}
    layers: list[Spec] = [
        {
            "data": {"values": band},
            "mark": {"type": "rect", "color": "var(--pass)", "opacity": 0.14, "aria": False},
            "encoding": {"y": {"field": "bottom", "type": "quantitative"}, "y2": {"field": "top"}},
        },
        {
            "mark": {"type": "line", "strokeWidth": 1.8, "aria": False},
            "encoding": {"x": x, "y": y, "color": colour, "detail": {"field": "input"}, "opacity": quiet},
        },
        {
            "transform": [named],
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 40},
            "encoding": {"x": x, "y": y, "color": colour, "opacity": quiet, "tooltip": told(), "description": told()},
        },
    ]
    shown = {"params": [chooser("observer", observers)], "transform": [{"filter": "datum.observer == observer"}]}
    return whole(layers, points, height=300, **shown)


def short(name: str) -> str:
    """The last words of a long module name: the block number stays, `model.layers` goes."""
    words = name.split(".")
    start = next((place for place, word in enumerate(words) if word.isdigit()), max(len(words) - 3, 0))
    found = ".".join(words[start:])
    return found if len(found) <= 27 else f"…{found[-26:]}"
