"""The small interval in a cell of the verdict matrix: inline SVG without script, colours from the page's style."""

from markupsafe import Markup

from qtool.report.drawing.axis_scale import Axis, share_bend
from qtool.report.drawing.svg import rule, svg
from qtool.report.judge import MarginUse

VERDICT_CLASSES = {"PASS": "pass", "FAIL": "fail", "UNDECIDED": "undecided", None: "plain"}


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
