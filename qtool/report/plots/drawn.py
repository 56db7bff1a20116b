"""A plot as SVG or PNG, by vl-convert, and as what a page draws itself."""

import json
import re
from functools import lru_cache
from importlib.util import find_spec

from qtool.errors import UsageError
from qtool.report.plots.plot import WIDTH, Plot

# the page's colours in the light, for files: page.css holds the same, and a test compares them
LIGHT = {
    "card": "#ffffff", "ink": "#1b1f24", "soft": "#5a636e", "line": "#e0e2e0",
    "pass": "#17734a", "fail": "#b3261e", "undecided": "#8a5a00", "plain": "#59636e",
    "s0": "#2456b8", "s1": "#b4541a", "s2": "#17734a", "s3": "#8a3ab9",
    "s4": "#8a6a1f", "s5": "#0d7c8c", "s6": "#b8336a", "s7": "#5b6770",
}  # fmt: skip
MISSING = "plots need the package vl-convert-python; install it with: pip install vl-convert-python"
_SCALE = 2  # pixels of a PNG for one of the plot: sharp on dense screens


def can_draw() -> bool:
    """Whether vl-convert is there; it is a dependency of qtool, which not every platform has a wheel of."""
    return find_spec("vl_convert") is not None


def svg(plot: Plot) -> str:
    """The plot as a file of its own, in the colours of light paper."""
    return _svg(_for_file(plot))


def page_svg(plot: Plot) -> str:
    """The plot for a page whose style sets the colours: they stay the names of its variables."""
    return _svg(json.dumps({**plot.spec, "width": WIDTH}, allow_nan=False))


def png(plot: Plot) -> bytes:
    """The plot as a picture, in the colours of light paper."""
    import vl_convert

    refuse_missing()
    return bytes(vl_convert.vegalite_to_png(_for_file(plot), scale=_SCALE))


def live(plot: Plot) -> str:
    """The specification that a page draws itself, as wide as its column: JSON that is safe inside of HTML."""
    return json.dumps({**plot.spec, "width": "container"}, allow_nan=False).replace("<", "\\u003c")


def refuse_missing() -> None:
    """Raises UsageError where nothing can be drawn."""
    if not can_draw():
        raise UsageError(MISSING)


def _for_file(plot: Plot) -> str:
    text = json.dumps({**plot.spec, "width": WIDTH}, allow_nan=False)
    return re.sub(r"var\(--([a-z0-9]+)\)", lambda found: LIGHT[found[1]], text)


@lru_cache(maxsize=64)
def _svg(spec: str) -> str:
    import vl_convert

    refuse_missing()
    return str(vl_convert.vegalite_to_svg(spec))
