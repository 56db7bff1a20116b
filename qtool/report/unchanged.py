"""Whether a folder still holds, to the byte, what its manifest says was written and verified there."""

from pathlib import Path

from qtool.errors import MismatchError
from qtool.records.bundle import Bundle
from qtool.records.variant import Variant
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.digest import file_digest


def changed_part(folder: Path, variant: Variant) -> str | None:
    """What of the variant in `folder` is no longer what its manifest names, as a subject with its verb, or None."""
    from qtool.models.checkpoint import tokenizer_digest, weights_digest

    if weights_digest(folder) != variant.weights_digest:
        return "weights or config.json are"
    return "tokenizer files are" if tokenizer_digest(folder) != variant.tokenizer_digest else None


def refuse_changed(folder: Path) -> None:
    """Raises MismatchError where the variant, bundle or run in `folder` has a file that is not what was written."""
    if (folder / layout.BUNDLE).is_file():
        for entry in read_json(Bundle, folder / layout.BUNDLE).files:
            path = folder / entry.path
            if not path.is_file() or file_digest(path) != entry.sha256:
                raise MismatchError(f"{path}: gone or changed since the bundle was made; make the bundle again")
        return
    manifests = [folder / layout.VARIANT, *sorted(layout.RunFolder(folder).variants.glob(f"*/{layout.VARIANT}"))]
    for manifest in (path for path in manifests if path.is_file() and any(path.parent.glob("*.safetensors"))):
        changed = changed_part(manifest.parent, read_json(Variant, manifest))
        if changed:
            raise MismatchError(
                f"{manifest.parent}: its {changed} not those that were written and verified; make the variant again"
            )
