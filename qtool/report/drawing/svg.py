"""The few shapes the report's drawings are made of, escaped; colours come from the page's style."""

import itertools
from collections.abc import Sequence

from markupsafe import Markup


def rule(x1: float, y1: float, x2: float, y2: float, css: str) -> Markup:
    """A straight line."""
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(css, x1, y1, x2, y2)


def text(x: float, y: float, words: str, css: str) -> Markup:
    """Words with their baseline at y; `start`, `middle` or `end` in `css` says what stands at x."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, x, y, words)


def svg(title: str, width: int, height: int, parts: Sequence[Markup], *, css: str = "plot") -> Markup:
    """The drawing, with `title` for those who do not see it."""
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        css, width, height, title, Markup("").join(parts)
    )


def spread(places: Sequence[float], apart: float) -> list[float]:
    """`places` moved down just enough that no two are closer than `apart`, in their given order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, index in itertools.pairwise(order):
        moved[index] = max(moved[index], moved[before] + apart)
    return [round(place, 1) for place in moved]
