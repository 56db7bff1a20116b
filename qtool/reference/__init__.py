"""The bundled reference models: small Llama models that every task file can be tried on without a download."""

from pathlib import Path

from qtool.errors import ModelError, UnknownName

# too large for the wheel; trained again to the same weights by the recipe in its card
IN_THE_SOURCES = ("reference-256",)

_WEIGHTS = Path(__file__).resolve().parent / "weights"


def names() -> tuple[str, ...]:
    """Names of the bundled models, smallest first."""
    folders = (path.parent.name for path in _WEIGHTS.glob("*/config.json"))
    return tuple(sorted(folders, key=lambda name: int(name.rsplit("-", 1)[1])))


def folder(name: str) -> Path:
    """The checkpoint folder of one bundled model. Raises UnknownName with the nearest names, ModelError for one that
    does not come with the wheel."""
    if name in IN_THE_SOURCES and name not in names():
        raise ModelError(
            f"{name}: comes with qtool's sources, not with its wheel; use {names()[-1]}, or give the folder "
            f"qtool/reference/weights/{name} of a clone"
        )
    if name not in names():
        raise UnknownName("reference model", name, names())
    return _WEIGHTS / name
