"""The few shapes the report's drawings are made of, escaped; colours come from the page's style."""

from collections.abc import Sequence

from markupsafe import Markup


def rule(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(css, x1, y1, x2, y2)


def svg(title: str, width: int, height: int, parts: Sequence[Markup], *, css: str = "plot") -> Markup:
    """The drawing, with `title` for those who do not see it."""
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        css, width, height, title, Markup("").join(parts)
    )
