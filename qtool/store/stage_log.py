"""Which stages of a run are done, from which inputs and with which files: a second run skips what did not change."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from qtool import __version__
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.digest import file_digest, record_digest
from qtool.store.run_directory import write_record

_OF_WHOLE_FOLDER = frozenset({layout.VARIANT, layout.CALIBRATION, layout.BUNDLE})


@dataclass(frozen=True, slots=True)
class FinishedStage:
    """A stage that ended well: digest of what went in, of the manifest that came out, and of every file beside it that
    the manifest speaks for, by path in the run."""

    inputs: str
    manifest: str
    manifest_digest: str
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StageLog:
    """The record `stages.json` of a run folder."""

    finished: dict[str, FinishedStage]


def is_done(run: Path, stage: str, inputs: object) -> bool:
    """Whether `stage` ended well from equal `inputs`, and its manifest and files are still those that it wrote."""
    entry = _entry(run, stage, inputs)
    return entry is not None and _first_changed(run, entry) is None


def changed_file(run: Path, stage: str, inputs: object) -> str | None:
    """The first file of a stage done from equal `inputs` that is gone or another by now; None where there is none."""
    entry = _entry(run, stage, inputs)
    return None if entry is None else _first_changed(run, entry)


def mark_done(run: Path, stage: str, inputs: object, manifest: Path, *, also: Iterable[Path] = ()) -> None:
    """Records that `stage` ended well from `inputs` and wrote `manifest`, a file inside `run`, with what belongs to it:
    all files of its folder for the manifest of a folder, else those whose names begin as its own; and `also`."""
    files = sorted({*_files_of(manifest), *also} - {manifest})
    entry = FinishedStage(
        _key(inputs),
        str(manifest.relative_to(run)),
        file_digest(manifest),
        tuple((str(path.relative_to(run)), file_digest(path)) for path in files),
    )
    log = _read(run)
    write_record(run / layout.STAGES, replace(log, finished={**log.finished, stage: entry}))


def _entry(run: Path, stage: str, inputs: object) -> FinishedStage | None:
    entry = _read(run).finished.get(stage)
    return entry if entry is not None and entry.inputs == _key(inputs) else None


def _first_changed(run: Path, entry: FinishedStage) -> str | None:
    for name, digest in ((entry.manifest, entry.manifest_digest), *entry.files):
        if not (run / name).is_file() or file_digest(run / name) != digest:
            return name
    return None


def _files_of(manifest: Path) -> list[Path]:
    whole = manifest.name in _OF_WHOLE_FOLDER
    found = manifest.parent.rglob("*") if whole else manifest.parent.glob(f"{manifest.stem}.*")
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def _key(inputs: object) -> str:
    """Digest of `inputs` and of the version: what another version made is made again."""
    return record_digest({"qtool": __version__, "inputs": inputs})


def _read(run: Path) -> StageLog:
    path = run / layout.STAGES
    return read_json(StageLog, path) if path.exists() else StageLog({})
