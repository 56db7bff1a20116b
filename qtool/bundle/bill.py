"""The bill of materials of a bundle (SBOM, CycloneDX 1.6): the model, its base, and the packages that serve it."""

import json

from qtool.bundle.deploy import pinned_packages
from qtool.records.bundle import BundleFile
from qtool.records.variant import Variant

FILE = "sbom.cdx.json"


def bill_of_materials(variant: Variant, files: tuple[BundleFile, ...], *, model: str, qtool_version: str) -> str:
    """The bill as JSON; equal bundles give equal bytes, so it has neither a serial number nor a date."""
    base = variant.base
    licence = {"licenses": [{"license": {"name": base.licence}}]} if base.licence else {}
    parts: list[dict[str, object]] = [
        {
            "type": "machine-learning-model",
            "bom-ref": "base",
            "name": base.name,
            "hashes": [{"alg": "SHA-256", "content": base.weights_digest}],
            **({"version": base.revision} if base.revision else {}),
            **licence,
        },
        {"type": "library", "bom-ref": "qtool", "name": "qtool", "version": qtool_version},
    ]
    for line in pinned_packages():
        name, _, version = line.partition("==")
        address = f"pkg:pypi/{name}@{version}"
        parts.append({"type": "library", "bom-ref": address, "name": name, "version": version, "purl": address})
    weights = [entry for entry in files if entry.path.endswith(".safetensors")]
    parts += [
        {
            "type": "file",
            "bom-ref": f"file:{entry.path}",
            "name": entry.path,
            "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
        }
        for entry in weights
    ]
    subject = {"type": "machine-learning-model", "bom-ref": "bundle", "name": model, **licence}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": subject,
            "tools": {"components": [{"type": "application", "name": "qtool", "version": qtool_version}]},
        },
        "components": parts,
        "dependencies": [{"ref": "bundle", "dependsOn": [str(part["bom-ref"]) for part in parts]}],
    }
    return json.dumps(bill, indent=2, sort_keys=True) + "\n"
