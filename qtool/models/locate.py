"""From what a user types to a local model folder: a reference name, a folder, or a hub id."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from qtool import catalog, reference
from qtool.errors import ModelError, UnknownName

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "LICENSE*")


def locate(model: str) -> Path:
    """The local folder of `model`; a hub id is looked up in the hub's cache first, then downloaded.

    Raises ModelError for a folder that does not exist or a hub that cannot be reached, UnknownName with the nearest
    reference names otherwise.
    """
    if not model:
        raise ModelError("the model is an empty string; give a reference name, a folder or a hub id")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file() and folder.suffix == ".gguf":
        return _from_gguf(folder)
    if folder.exists():
        raise ModelError(f"{model}: is a file; give the model's folder")
    if model in reference.names() or model in reference.IN_THE_SOURCES:
        return reference.folder(model)
    if model.startswith((".", "~", os.sep)) or model.count("/") > 1 or model.endswith("/"):
        raise ModelError(f"{model}: no such folder")
    if _HUB_ID.fullmatch(model):
        return _from_hub(model)
    raise UnknownName("model", model, reference.names())


def _from_gguf(file: Path) -> Path:
    """The folder made of a GGUF file, which the user's cache keeps."""
    catalog.require("gguf", needed_by=file.name, extra="gguf")
    from qtool.formats.gguf.take_in import folder_of

    return folder_of(file)


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # httpx's or httpx2's

    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES), local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache: ask the hub
    try:
        with _no_warnings():
            return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES)))
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        reason = {
            401: "the hub knows no such public model; check the spelling, or log in with `hf auth login`",
            403: "access is restricted; accept its terms on the hub and log in with `hf auth login`",
            404: "the hub knows no such model; check the spelling",
        }.get(status or 0, f"the hub answered with status {status}; try again later")
        raise ModelError(f"{model}: no such folder, and {reason}") from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, TransportError, OSError) as error:
        raise ModelError(
            f"{model}: no such folder, not in the local hub cache, and the hub cannot be reached; "
            "download it where there is a network and give the folder"
        ) from error


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    """Keeps the hub's client from telling each retry: what became of them is said once, at the end."""
    from huggingface_hub.utils import logging as hub_logging

    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(before)
