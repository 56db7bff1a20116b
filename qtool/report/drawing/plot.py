"""The trade-off plot and the load curves: inline SVG without script, colours from the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from qtool.records.latency import LatencyProfile
from qtool.records.report import Report, ReportRow
from qtool.report.drawing.axis_scale import Axis, padded, round_ticks, share_bend, share_ticks
from qtool.report.drawing.labels import Box, place_label
from qtool.report.drawing.svg import rule, spread, svg, text
from qtool.report.judge import MarginUse, worst_margin_use
from qtool.report.texts.numbers import bytes_text, median, ms_text

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 24, 64
_LABEL_HEIGHT = 15
_CLEAR = 5.0  # pixels between an interval line and a label
_MARGIN_NOTE = "the margin: intervals reaching below it cannot pass"
_LARGEST_RADIUS = 20.0
VERDICT_CLASSES = {"PASS": "pass", "FAIL": "fail", "UNDECIDED": "undecided", None: "plain"}


@dataclass(frozen=True, slots=True)
class _Dot:
    """One variant of the plot: time in ms with its interval, margin use, size, and how it looks."""

    name: str
    time_ms: float
    time_low: float
    time_high: float
    use: MarginUse
    bytes: int
    look: str
    on_front: bool
    chosen: bool


def tradeoff(report: Report) -> Markup | None:
    """Median time [x], share of the margin used [y], area by bytes; None below two variants with all of it."""
    dots = [dot for row in report.rows if (dot := _dot(row, report)) is not None]
    if len(dots) < 2:
        return None
    x = Axis(*padded([end for dot in dots for end in (dot.time_low, dot.time_high)]), _LEFT + 20, _WIDTH - _RIGHT - 30)
    lows = [dot.use.low for dot in dots]
    highs = [dot.use.high for dot in dots]
    y = Axis(min(*lows, -1.6) * 1.15, max(*highs, 0.5) * 1.15, _HEIGHT - _BOTTOM, _TOP, share_bend)
    parts = [_frame(x, y)]
    parts += [_whiskers(dot, x, y) for dot in dots]
    largest = max(dot.bytes for dot in dots)
    parts += [_mark(dot, x, y, largest) for dot in sorted(dots, key=lambda dot: -dot.bytes)]
    parts += _labels(dots, x, y, largest)
    return svg("Accuracy, time and memory of each variant", _WIDTH, _HEIGHT, parts)


def load_curve(report: Report) -> Markup | None:
    """Output tokens a second [y] against requests in flight [x], a line a variant; None below two levels."""
    profiles = [row.latency for row in report.rows if row.latency is not None and len(row.latency.levels) > 1]
    if not profiles:
        return None
    levels = sorted({level.concurrency for profile in profiles for level in profile.levels})
    height = 300
    x = Axis(math.log2(levels[0]), math.log2(levels[-1]), _LEFT + 20, _WIDTH - 190)
    top = max(level.output_tokens_per_second for profile in profiles for level in profile.levels)
    y = Axis(0.0, top * 1.1, height - 50, 16)
    parts = [rule(_LEFT, y.at(tick), _WIDTH - 180, y.at(tick), "grid") for tick in round_ticks(0, top * 1.1, 5)]
    parts += [text(_LEFT - 8, y.at(tick) + 4, f"{tick:,.0f}", "tick end") for tick in round_ticks(0, top * 1.1, 5)]
    parts += [text(x.at(math.log2(level)), height - 30, str(level), "tick middle") for level in levels]
    parts.append(text((_LEFT + _WIDTH - 180) / 2, height - 8, "requests in flight", "axis middle"))
    parts.append(text(_LEFT - 48, 12, "output tokens a second", "axis"))
    ends = [y.at(_last(profile)) + 4 for profile in profiles]
    for index, (profile, place) in enumerate(zip(profiles, spread(ends, _LABEL_HEIGHT), strict=True)):
        parts.append(_line(profile, index, x, y))
        parts.append(text(_WIDTH - 176, place, profile.variant, f"label series{index % 8}"))
    return svg("Throughput under load", _WIDTH, height, parts)


def whisker(use: MarginUse, look: str) -> Markup:
    """A small interval against its margin: zero and −1 marked, arrow heads where it leaves the picture."""
    x = Axis(-3.0, 1.5, 4, 136, share_bend)
    low, high = x.at(use.low), x.at(use.high)
    parts = [rule(x.at(-1), 1, x.at(-1), 15, "margin"), rule(x.at(0), 1, x.at(0), 15, "zero")]
    parts.append(rule(low, 8, high, 8, f"whisker {look}"))
    if use.low < x.low:
        parts.append(Markup('<path class="arrow {}" d="M0 8 l6 -4 v8 z"/>').format(look))
    if use.high > x.high:
        parts.append(Markup('<path class="arrow {}" d="M140 8 l-6 -4 v8 z"/>').format(look))
    if x.low <= use.change <= x.high:
        parts.append(Markup('<circle class="dot {}" cx="{}" cy="8" r="3.5"/>').format(look, x.at(use.change)))
    title = f"change {use.change:+.2f} of the margin, interval {use.low:+.2f} to {use.high:+.2f}"
    return svg(title, 140, 16, parts, css="whisker-plot")


def _dot(row: ReportRow, report: Report) -> _Dot | None:
    time = median(row.latency)
    use = worst_margin_use(row, report.critical_tasks)
    if time is None or time.value_ms is None or use is None:
        return None
    base = row.variant.recipe.scheme == "base"
    return _Dot(
        name=row.variant.name,
        time_ms=time.value_ms,
        time_low=time.interval.low if time.interval else time.value_ms,
        time_high=time.interval.high if time.interval else time.value_ms,
        use=use,
        bytes=row.variant.bytes,
        look="plain" if base else VERDICT_CLASSES[row.overall],
        on_front=row.on_front,
        chosen=report.recommendation.variant == row.variant.name,
    )


def _frame(x: Axis, y: Axis) -> Markup:
    right = _WIDTH - _RIGHT
    zone = Markup('<rect class="beyond" x="{}" y="{}" width="{}" height="{}"/>').format(
        _LEFT, y.at(-1), right - _LEFT, round(_HEIGHT - _BOTTOM - y.at(-1), 1)
    )
    parts = [zone]
    for tick in share_ticks(y, apart=24):
        parts.append(rule(_LEFT, y.at(tick), right, y.at(tick), {0.0: "zero", -1.0: "margin"}.get(tick, "grid")))
        parts.append(text(_LEFT - 8, y.at(tick) + 4, f"{tick:+.3g}".replace("-", "−").replace("+0", "0"), "tick end"))
    for tick in round_ticks(x.low, x.high, 7):
        parts.append(rule(x.at(tick), _HEIGHT - _BOTTOM, x.at(tick), _HEIGHT - _BOTTOM + 5, "tickmark"))
        parts.append(text(x.at(tick), _HEIGHT - _BOTTOM + 20, f"{tick:g}", "tick middle"))
    parts.append(rule(_LEFT, _HEIGHT - _BOTTOM, right, _HEIGHT - _BOTTOM, "tickmark"))
    parts.append(
        text((_LEFT + right) / 2, _HEIGHT - 22, "median time of a request, ms (left is faster)", "axis middle")
    )
    parts.append(text(_LEFT - 48, 12, "change on the worst critical task, in margins", "axis"))
    parts.append(text(right - 6, y.at(-1) - 6, _MARGIN_NOTE, "note end"))
    return Markup("").join(parts)


def _whiskers(dot: _Dot, x: Axis, y: Axis) -> Markup:
    across = rule(x.at(dot.time_low), y.at(dot.use.change), x.at(dot.time_high), y.at(dot.use.change), dot.look)
    upright = rule(x.at(dot.time_ms), y.at(dot.use.low), x.at(dot.time_ms), y.at(dot.use.high), dot.look)
    return Markup('<g class="whisker">{}{}</g>').format(across, upright)


def _radius(dot: _Dot, largest: int) -> float:
    return round(max(4.0, _LARGEST_RADIUS * math.sqrt(dot.bytes / largest)), 1)


def _mark(dot: _Dot, x: Axis, y: Axis, largest: int) -> Markup:
    px, py, radius = x.at(dot.time_ms), y.at(dot.use.change), _radius(dot, largest)
    about = (
        f"{dot.name}: {ms_text(dot.time_ms)}, {bytes_text(dot.bytes)}, "
        f"change {dot.use.change:+.2f} margins on {dot.use.task or 'itself'}"
    )
    ring = Markup('<circle class="ring" cx="{}" cy="{}" r="{}"/>').format(px, py, radius + 5) if dot.chosen else ""
    return Markup(
        '<g><title>{}</title>{}<circle class="disc {}{}" cx="{}" cy="{}" r="{}"/>'
        '<circle class="dot {}" cx="{}" cy="{}" r="2.5"/></g>'
    ).format(about, ring, dot.look, "" if dot.on_front else " beaten", px, py, radius, dot.look, px, py)


def _labels(dots: Sequence[_Dot], x: Axis, y: Axis, largest: int) -> list[Markup]:
    right = _WIDTH - _RIGHT - 6
    note = Box(right - 6.3 * len(_MARGIN_NOTE), y.at(-1) - 18, right, y.at(-1) + 2)
    zero = Box(_LEFT, y.at(0) - 2, _WIDTH - _RIGHT, y.at(0) + 2)
    placed: list[Box] = []
    frame = Box(_LEFT, _TOP - 8, _WIDTH - 4, _HEIGHT - _BOTTOM)
    parts = []
    for dot in sorted(dots, key=lambda dot: not dot.chosen):
        words = f"{dot.name} · {bytes_text(dot.bytes)}"
        label = place_label(
            words,
            x.at(dot.time_ms),
            y.at(dot.use.change),
            _radius(dot, largest) + (6 if dot.chosen else 0),
            obstacles=[note, zero, *placed, *(box for other in dots for box in _boxes(other, dot, x, y, largest))],
            frame=frame,
        )
        placed.append(label.box)
        parts.append(text(label.x, label.y, words, f"label {label.anchor}{' strong' if dot.chosen else ''}"))
    return parts


def _boxes(dot: _Dot, named: _Dot, x: Axis, y: Axis, largest: int) -> list[Box]:
    """What the label of `named` should not cover of `dot`; beside another's disc it would seem to name that one."""
    px, py = x.at(dot.time_ms), y.at(dot.use.change)
    radius = _radius(dot, largest) + (-3 if dot is named else 14)
    return [
        Box(px - radius, py - radius, px + radius, py + radius),
        Box(x.at(dot.time_low) - _CLEAR, py - _CLEAR, x.at(dot.time_high) + _CLEAR, py + _CLEAR),
        Box(px - _CLEAR, y.at(dot.use.high) - _CLEAR, px + _CLEAR, y.at(dot.use.low) + _CLEAR),
    ]


def _line(profile: LatencyProfile, index: int, x: Axis, y: Axis) -> Markup:
    ordered = sorted(profile.levels, key=lambda level: level.concurrency)
    points = [(x.at(math.log2(level.concurrency)), y.at(level.output_tokens_per_second)) for level in ordered]
    path = " ".join(f"{px},{py}" for px, py in points)
    circles = Markup("").join(Markup('<circle cx="{}" cy="{}" r="3.5"/>').format(px, py) for px, py in points)
    return Markup('<g class="series{}"><polyline points="{}"/>{}</g>').format(index % 8, path, circles)


def _last(profile: LatencyProfile) -> float:
    return max(profile.levels, key=lambda level: level.concurrency).output_tokens_per_second
