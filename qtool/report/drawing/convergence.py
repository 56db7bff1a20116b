"""The convergence plots of the certificate: each range against the number of sequences that made it, as inline SVG."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from qtool.records.certificate import RANGE_TOLERANCE, Certificate, LayerCertificate, RangeCertificate
from qtool.report.drawing.axis_scale import Axis, round_ticks
from qtool.report.drawing.svg import rule, spread, svg, text

NAMED = 4  # inputs that get a colour and a name; the others are drawn thin
_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 236, 26, 48

Drawn = tuple[LayerCertificate, RangeCertificate]


def convergence(certificate: Certificate, observer: str, order: Sequence[LayerCertificate]) -> Markup | None:
    """Range as a share of its final value [y] against sequences [x], a line an input, the first of `order` named.

    None where no input was seen with two numbers of sequences.
    """
    drawn = [
        (layer, found)
        for layer in order
        for found in layer.ranges
        if found.observer == observer and len(found.curve) > 1 and found.high > 0
    ]
    if not drawn:
        return None
    x, y = _axes(drawn)
    parts = [_frame(x, y, drawn)]
    parts += [_line(found, "quiet", x, y) for _, found in reversed(drawn[NAMED:])]
    named = drawn[:NAMED]
    for index, (_, found) in reversed(list(enumerate(named))):
        # the intervals stand beside each other, all at the last number of sequences
        parts.append(_line(found, f"series{index}", x, y))
        parts.append(_interval(found, index, x.end + 10 + 7 * index, y))
    places = spread([y.at(found.interval_high / found.high) + 4 for _, found in named], 15)
    overhang = max(0.0, max(places) - (_HEIGHT - _BOTTOM))
    for index, ((layer, _), place) in enumerate(zip(named, places, strict=True)):
        parts.append(text(x.end + 44, place - overhang, _short(layer.input), f"label series{index}"))
    return svg(f"Convergence of {observer} ranges", _WIDTH, _HEIGHT, parts)


def _axes(drawn: Sequence[Drawn]) -> tuple[Axis, Axis]:
    counts = [point.sequences for _, found in drawn for point in found.curve]
    shares = [point.high / found.high for _, found in drawn for point in found.curve]
    ends = [end / found.high for _, found in drawn for end in (found.interval_low, found.interval_high)]
    low, high = min(*shares, *ends, 1 - 2 * RANGE_TOLERANCE), max(*shares, *ends, 1 + 2 * RANGE_TOLERANCE)
    air = 0.04 * (high - low)
    x = Axis(min(counts), max(counts), _LEFT + 12, _WIDTH - _RIGHT, math.log2)
    return x, Axis(max(low - air, 0.0), high + air, _HEIGHT - _BOTTOM, _TOP)


def _frame(x: Axis, y: Axis, drawn: Sequence[Drawn]) -> Markup:
    band = Markup('<rect class="tolerance" x="{}" y="{}" width="{}" height="{}"/>').format(
        _LEFT,
        y.at(1 + RANGE_TOLERANCE),
        x.end - _LEFT,
        round(y.at(1 - RANGE_TOLERANCE) - y.at(1 + RANGE_TOLERANCE), 1),
    )
    parts = [band]
    for tick in round_ticks(y.low, y.high, 5):
        parts.append(rule(_LEFT, y.at(tick), x.end, y.at(tick), "zero" if tick == 1 else "grid"))
        parts.append(text(_LEFT - 8, y.at(tick) + 4, f"{tick:g}", "tick end"))
    longest = max((found.curve for _, found in drawn), key=len)
    for point in longest:
        parts.append(rule(x.at(point.sequences), _HEIGHT - _BOTTOM, x.at(point.sequences), _HEIGHT - 43, "tickmark"))
        parts.append(text(x.at(point.sequences), _HEIGHT - 29, str(point.sequences), "tick middle"))
    parts.append(text((_LEFT + x.end) / 2, _HEIGHT - 8, "sequences that made the range", "axis middle"))
    parts.append(text(_LEFT - 44, 13, "range, as a share of the range from all sequences", "axis"))
    return Markup("").join(parts)


def _line(found: RangeCertificate, css: str, x: Axis, y: Axis) -> Markup:
    path = " ".join(f"{x.at(point.sequences)},{y.at(point.high / found.high)}" for point in found.curve)
    return Markup('<g class="{}"><polyline points="{}"/></g>').format(css, path)


def _interval(found: RangeCertificate, index: int, place: float, y: Axis) -> Markup:
    low, high = y.at(found.interval_low / found.high), y.at(found.interval_high / found.high)
    caps = [rule(place - 2.5, end, place + 2.5, end, "bar") for end in (low, high)]
    bar = Markup("").join([rule(place, low, place, high, "bar"), *caps])
    dot = Markup('<circle cx="{}" cy="{}" r="3"/>').format(place, y.at(1))
    return Markup('<g class="series{}">{}{}</g>').format(index, bar, dot)


def _short(name: str) -> str:
    """The last words of a long module name: the block number stays, `model.layers` goes."""
    words = name.split(".")
    start = next((place for place, word in enumerate(words) if word.isdigit()), max(len(words) - 3, 0))
    found = ".".join(words[start:])
    return found if len(found) <= 27 else f"…{found[-26:]}"
