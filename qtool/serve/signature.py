"""Signed bundles: an Ed25519 signature over `bundle.json`, which holds the SHA-256 of every other file."""

from pathlib import Path

from qtool.errors import MismatchError, MissingPackage, UsageError
from qtool.store import layout

SIGNATURE = "bundle.json.sig"


def verify_signature(folder: Path, public_key: Path) -> None:
    """Raises MismatchError unless the manifest of `folder` is signed by the owner of `public_key` (PEM)."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise MissingPackage("cryptography", "--require-signature", "sign") from error
    try:
        key = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{public_key}: cannot be read as a public key (PEM): {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{public_key}: is no Ed25519 key; make one with: openssl genpkey -algorithm ed25519")
    place = folder / SIGNATURE
    if not place.is_file():
        raise MismatchError(f"{folder}: is not signed (no {SIGNATURE}); sign it, see docs/serving.md")
    try:
        key.verify(place.read_bytes(), (folder / layout.BUNDLE).read_bytes())
    except InvalidSignature as error:
        raise MismatchError(f"{place}: was not made with this key for this {layout.BUNDLE}") from error
