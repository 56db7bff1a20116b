"""Which stages of a run are done, and from which inputs: what lets a second run skip what did not change."""

from dataclasses import dataclass, replace
from pathlib import Path

from qtool import __version__
from qtool.store.codec import read_json
from qtool.store.digest import file_digest, record_digest
from qtool.store.run_directory import write_record

_NAME = "stages.json"


@dataclass(frozen=True, slots=True)
class FinishedStage:
    """A stage that ended well: digest of what went in, and of the manifest that came out."""

    inputs: str
    manifest: str
    manifest_digest: str


@dataclass(frozen=True, slots=True)
class StageLog:
    """The record `stages.json` of a run folder."""

    finished: dict[str, FinishedStage]


def is_done(run: Path, stage: str, inputs: object) -> bool:
    """Whether this version ended `stage` well from equal `inputs` and its manifest is still the one it wrote."""
    entry = _read(run).finished.get(stage)
    if entry is None or entry.inputs != _key(inputs):
        return False
    manifest = run / entry.manifest
    return manifest.is_file() and file_digest(manifest) == entry.manifest_digest


def mark_done(run: Path, stage: str, inputs: object, manifest: Path) -> None:
    """Records that `stage` ended well from `inputs` and wrote `manifest`, a file inside `run`."""
    entry = FinishedStage(_key(inputs), str(manifest.relative_to(run)), file_digest(manifest))
    log = _read(run)
    write_record(run / _NAME, replace(log, finished={**log.finished, stage: entry}))


def _key(inputs: object) -> str:
    """Digest of `inputs` and of the version: what another version made is made again."""
    return record_digest({"qtool": __version__, "inputs": inputs})


def _read(run: Path) -> StageLog:
    path = run / _NAME
    return read_json(StageLog, path) if path.exists() else StageLog({})
