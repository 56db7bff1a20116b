"""Who a model is: what its files are, told by digests and not by their path."""

import re
from pathlib import Path

from qtool.models.checkpoint import open_checkpoint, tokenizer_digest, weights_digest
from qtool.models.skeleton import count_parameters
from qtool.records.model import ModelIdentity

_LICENCE = re.compile(r"^license:\s*[\"']?([\w.-]+)[\"']?\s*$", re.MULTILINE)
_CARD_CHARACTERS = 20_000  # the head of a model card is shorter


def identify(folder: Path, *, name: str | None = None, source: str | None = None) -> ModelIdentity:
    """What makes the model in `folder` the same as another: digests of its weights and tokenizer, not its path.

    `name` and `source` are those of the hub for a folder of the hub's cache, else the folder's own name: an artifact
    carries no path of the machine it was made on.
    """
    checkpoint = open_checkpoint(folder)
    architectures = checkpoint.config.get("architectures") or [str(checkpoint.config["model_type"])]
    resolved = folder.resolve()
    cached = resolved.parent.name == "snapshots"  # .../models--<owner>--<name>/snapshots/<revision>
    hub_id = "/".join(resolved.parent.parent.name.split("--")[1:]) if cached else ""
    return ModelIdentity(
        name=name or hub_id.rpartition("/")[2] or folder.name or resolved.name,
        source=source or hub_id or folder.name or resolved.name,
        revision=resolved.name if cached else None,
        architecture=str(architectures[0]),
        weights_digest=weights_digest(folder),
        tokenizer_digest=tokenizer_digest(folder),
        dtype=str(checkpoint.main_dtype()).removeprefix("torch."),
        parameters=count_parameters(folder),
        bytes=checkpoint.bytes,
        licence=_licence(folder),
    )


def _licence(folder: Path) -> str | None:
    """The licence that the folder's model card names in its head."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        parts = file.read(_CARD_CHARACTERS).split("---", 2)
    found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found[1] if found else None
