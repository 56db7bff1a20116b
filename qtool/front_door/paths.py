"""What a caller may give where a file, a folder or a model is asked for."""

from pathlib import Path

from qtool.records.place import Place, Server, server_at

PathLike = str | Path
ModelLike = str | Path | Server


def optional_path(path: PathLike | None) -> Path | None:
    """`path` as a Path, where there is one."""
    return None if path is None else Path(path)


def model_place(model: ModelLike) -> Place:
    """The folder of a model that is named, or the server at an address."""
    from qtool.models.locate import locate

    if isinstance(model, Server):
        return model
    return server_at(str(model)) or locate(str(model))
