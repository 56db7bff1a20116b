"""What must hold before a bundle is served: its files are the ones listed, and this machine reproduces its answers."""

from collections import Counter
from pathlib import Path, PurePosixPath

from qtool.engine.contract import Engine
from qtool.engine.golden import compare
from qtool.errors import MismatchError, StoreError
from qtool.records.bundle import Bundle
from qtool.serve.supervision.messages import KERNELS_AS_MEASURED
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.digest import file_digest

FORMAT_VERSION = 1
_DOCUMENTS = ("README.md", layout.REPORT_PAGE)  # people edit them: nothing that answers depends on them
_CODE_OR_PICKLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".py", ".so", ".gguf")


def read_bundle(folder: Path) -> Bundle:
    """The manifest of `folder`. Raises StoreError saying what to do when it is not a bundle."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder")
    if not (folder / layout.BUNDLE).is_file():
        raise StoreError(f"{folder}: not a bundle (no {layout.BUNDLE}); make one with: qtool bundle RUN")
    bundle = read_json(Bundle, folder / layout.BUNDLE)
    if bundle.format_version != FORMAT_VERSION:
        raise StoreError(
            f"{folder / layout.BUNDLE}: format {bundle.format_version}, this qtool reads {FORMAT_VERSION}; "
            f"it was written by qtool {bundle.qtool_version}"
        )
    return bundle


def changed_documents(folder: Path, bundle: Bundle) -> tuple[str, ...]:
    """Documents of the bundle that are gone or were edited since it was made; they stop nothing."""
    listed = {entry.path: entry.sha256 for entry in bundle.files if entry.path in _DOCUMENTS}
    return tuple(
        path
        for path, digest in sorted(listed.items())
        if not (folder / path).is_file() or file_digest(folder / path) != digest
    )


def verify_files(folder: Path, bundle: Bundle) -> None:
    """Raises MismatchError unless every listed file but the documents is there, inside the folder, with its size and
    SHA-256."""
    listed = {entry.path: entry for entry in bundle.files}
    for path, entry in sorted(listed.items()):
        place = _inside(folder, path)
        if path in _DOCUMENTS:
            continue
        if not place.is_file():
            raise MismatchError(f"{folder}: {path} is listed in {layout.BUNDLE} and missing")
        size = place.stat().st_size
        if size != entry.bytes:
            raise MismatchError(
                f"{place}: has {size:,} bytes, {layout.BUNDLE} says {entry.bytes:,}; copy the bundle again"
            )
        if file_digest(place) != entry.sha256:
            raise MismatchError(f"{place}: its SHA-256 is not the one in {layout.BUNDLE}; copy the bundle again")
    for place in sorted(folder.rglob("*")):
        name = place.relative_to(folder).as_posix()
        if place.is_file() and name not in listed and place.suffix in (*_CODE_OR_PICKLE, ".safetensors"):
            raise MismatchError(f"{place}: is not listed in {layout.BUNDLE}; remove it or make the bundle again")


def reproduce(engine: Engine, bundle: Bundle) -> float:
    """Greatest difference from the golden log-probabilities [nats]. Raises MismatchError beyond their
    tolerance, and where there are none to compare."""
    if not bundle.golden:
        raise MismatchError(
            f"{bundle.name}: {layout.BUNDLE} has no golden prompts, so nothing proves that this machine answers as was "
            "measured; make the bundle again with: qtool bundle RUN"
        )
    worst = 0.0
    for index, golden in enumerate(bundle.golden):
        deviation = compare(engine, golden)
        if not deviation.reproduced:
            found = "a recorded token is not among the likely ones"
            if deviation.difference is not None:
                found = f"log-probabilities differ by {deviation.difference:.3g} nats"
            raise MismatchError(
                f"golden prompt {index} is not reproduced on this machine: {found}, tolerance "
                f"{deviation.tolerance:.3g}, {deviation.greedy_equal} of {deviation.greedy_total} greedy tokens equal; "
                "weights or kernels are not what was measured"
            )
        worst = max(worst, deviation.difference or 0.0)
    return worst


def kernels_beside_measured(engine: Engine, bundle: Bundle) -> str | None:
    """Whether the products that serve are those that were timed: "as measured", or how they differ; None where the
    bundle was not timed. Other ones answer the same, at another speed: a machine without a compiler, for example."""
    profile = bundle.report_row.latency if bundle.report_row is not None else None
    if profile is None or not profile.kernels:
        return None
    counts = Counter(label for _, label in engine.kernels)
    found = {label: f"{count} layers" for label, count in counts.items()}
    if found == dict(profile.kernels):
        return KERNELS_AS_MEASURED
    now, then = (", ".join(f"{label} ({layers})" for label, layers in sorted(part.items()))
                 for part in (found, dict(profile.kernels)))  # fmt: skip
    return f"{now} where {then} was measured; the times of the report do not hold here"


def _inside(folder: Path, path: str) -> Path:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise MismatchError(f"{folder / layout.BUNDLE}: {path!r} points outside the bundle")
    place = folder / pure
    if not place.resolve().is_relative_to(folder.resolve()):
        raise MismatchError(f"{place}: is a link that leaves the bundle")
    return place
