"""How an item becomes an answer; a scorer is a module and its file name is its name."""

import functools
from typing import cast

from qtool import catalog
from qtool.evaluate.contract import Scorer


@functools.cache
def load_scorer(name: str) -> Scorer:
    """The scorer called `name`. Raises UnknownName with the nearest names."""
    return cast(Scorer, catalog.load(__name__, name, kind="scorer"))
