"""Vega, Vega-Lite and vega-embed as one script: the file that travels with qtool, and the program that makes it.

It is made once for each release, since putting it together takes vl-convert half a minute on a busy machine.
"""

import sys
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

_HEAD = """/*! Vega {vega}, Vega-Lite {lite} and vega-embed {embed}, put together by vl-convert {own}:
 * python -m qtool.report.plots.library > qtool/report/page/vega.js
 * Copyright (c) University of Washington Interactive Data Lab and contributors; BSD 3-Clause licence, see
 * https://github.com/vega/vega/blob/main/LICENSE. Contains d3 (Copyright Mike Bostock, ISC licence).
 */
"""


@lru_cache(maxsize=1)
def script() -> str:
    """The script that a page draws its plots with; it reaches for nothing outside the page."""
    return files("qtool.report").joinpath("page", "vega.js").read_text(encoding="utf-8")


def head() -> str:
    """What stands at the top of the script that the installed vl-convert would make: its versions."""
    import vl_convert

    return _HEAD.format(
        vega=vl_convert.get_vega_version(),
        lite=vl_convert.get_vegalite_versions()[-1],
        embed=vl_convert.get_vega_embed_version(),
        own=version("vl-convert-python"),
    )


def made() -> str:
    """The script as the installed vl-convert makes it, safe inside of a page."""
    import vl_convert

    bundle: Any = vl_convert.javascript_bundle  # its stub wants a snippet; without one it gives all three libraries
    return f"{head()}{bundle()}\n".replace("</script", "<\\/script")


if __name__ == "__main__":
    sys.stdout.write(made())
