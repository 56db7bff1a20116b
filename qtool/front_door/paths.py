"""What a caller may give where a file, a folder or a model is asked for."""

from pathlib import Path

PathLike = str | Path


def optional_path(path: PathLike | None) -> Path | None:
    """`path` as a Path, where there is one."""
    return None if path is None else Path(path)


def model_place(model: PathLike) -> Path:
    """The folder of a model that is named, or the address of a server as it is."""
    from qtool.models.locate import is_url, locate

    return Path(model) if is_url(Path(model)) else locate(str(model))
