"""Opens a model folder as an engine."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

from qtool import catalog
from qtool.engine.contract import Encode, Engine, EngineOptions


def open_engine(
    folder: Path,
    *,
    backend: str = "qtool",
    dtype: str = "auto",
    device: str = "auto",
    slots: int = 32,
    context_tokens: int | None = None,
    encode: Encode | None = None,
    frugal: bool = False,
) -> Engine:
    """The model in `folder` ready to answer: a base, a baseline, or a quantized variant.

    Raises ModelError when the folder is damaged or quantized in a way qtool cannot read, CapacityError when it does
    not fit this machine, UnknownName for a backend that does not exist.
    """
    plugin = catalog.load("qtool.engine.backends", backend, kind="engine backend")
    opener = cast(Callable[[Path, EngineOptions], Engine], plugin.open_model)
    options = EngineOptions(dtype, device, slots, context_tokens, encode, frugal)
    return opener(folder, options)
