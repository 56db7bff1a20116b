"""Opens a model folder as an engine."""

from collections.abc import Callable
from typing import cast

from qtool import catalog
from qtool.engine.contract import Encode, Engine, EngineOptions
from qtool.records.place import Place, Server


def open_engine(
    place: Place,
    *,
    backend: str = "qtool",
    dtype: str = "auto",
    device: str = "auto",
    slots: int = 32,
    context_tokens: int | None = None,
    encode: Encode | None = None,
    frugal: bool = False,
) -> Engine:
    """The model at `place` ready to answer: a base, a baseline, a quantized variant, or a server that has one.

    Raises ModelError when the folder is damaged or quantized in a way qtool cannot read, CapacityError when it does
    not fit this machine, UnknownName for a backend that does not exist.
    """
    name = "openai" if isinstance(place, Server) else backend
    plugin = catalog.load("qtool.engine.backends", name, kind="engine backend")
    opener = cast(Callable[[Place, EngineOptions], Engine], plugin.open_model)
    options = EngineOptions(dtype, device, slots, context_tokens, encode, frugal)
    return opener(place, options)
