"""Which formats there are: qtool's own and those that installed packages add."""

import functools
from typing import TYPE_CHECKING, cast

from qtool import catalog
from qtool.errors import ModelError
from qtool.formats.schemes import SCHEMES

if TYPE_CHECKING:
    from qtool.formats.contract import Format, WrittenFormat

PACKAGE = "qtool.formats"


def formats() -> "tuple[Format, ...]":
    """Every format, by name."""
    return tuple(_load(name) for name in catalog.names(PACKAGE))


def written(name: str) -> "WrittenFormat":
    """The format that a recipe calls `name`, with hyphens. Raises UnknownName with the nearest names."""
    return cast("WrittenFormat", _load(name.replace("-", "_")))


def of_packing(packing: str) -> "Format":
    """The format that stores layers as `packing`."""
    if packing not in (known := _by_packing()):
        raise ModelError(f"stored as {packing!r}; known: {', '.join(known)}")
    return known[packing]


def holding(scheme: str) -> tuple[str, ...]:
    """Names of the formats that a recipe of `scheme` may ask for, the usual one first."""
    own = SCHEMES[scheme].formats
    names = (name for name in catalog.names(PACKAGE) if scheme in _load(name).SCHEMES)
    return tuple(dict.fromkeys((*own, *(name.replace("_", "-") for name in names))))


@functools.cache
def _by_packing() -> "dict[str, Format]":
    return {packing: each for each in formats() for packing in each.PACKINGS}


def _load(name: str) -> "Format":
    return cast("Format", catalog.load(PACKAGE, name, kind="format"))
