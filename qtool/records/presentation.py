"""How a record shows itself in a Python session: a short `repr`, `.table()`, and the table in a notebook.

Records hold no texts: the front door says here which function writes the text of which record.
"""

import html
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

_TEXTS: dict[type, Callable[[Any], str]] = {}


class Presented:
    """What the main records share. `SHOWN` names the attributes, dotted where nested, that the short `repr` tells."""

    __slots__ = ()

    SHOWN: ClassVar[tuple[str, ...]] = ()

    def table(self) -> str:
        """The text that the command of the same name prints."""
        return _TEXTS[type(self)](self) if type(self) in _TEXTS else repr(self)

    def __repr__(self) -> str:
        shown = (f"{name.rpartition('.')[2]}={attrgetter(name)(self)!r}" for name in self.SHOWN)
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.table())}</pre>"


def present(record: type[T], text: Callable[[T], str]) -> None:
    """From now on `text` writes the table of every `record`."""
    _TEXTS[record] = text
