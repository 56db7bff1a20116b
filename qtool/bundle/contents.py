"""The files of a bundle: copied by an allow-list, then listed with size and SHA-256."""

import shutil
from dataclasses import replace
from pathlib import Path

from qtool.errors import StoreError
from qtool.records.bundle import Bundle, BundleFile
from qtool.records.plan_lock import PlanLock
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.digest import file_digest
from qtool.store.run_directory import write_record

SUMS = "SHA256SUMS"
_KINDS = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")
_CALIBRATION = (layout.CALIBRATION, layout.RANGES, layout.HISTOGRAMS)


def copy_variant(variant: Path, target: Path) -> None:
    """Weights, configuration, tokenizer, chat template and ledger of `variant`; nothing that could be code."""
    for path in sorted(variant.iterdir()):
        if path.is_file() and path.suffix in _KINDS and not path.name.startswith("."):
            shutil.copyfile(path, target / path.name)
    if not any(target.glob("*.safetensors")):
        raise StoreError(f"{variant}: holds no safetensors weights")


def copy_calibration(run: Path, target: Path) -> None:
    """The calibration of `run`, for watching drift on live traffic; nothing where there was none."""
    source, copy = layout.RunFolder(run).calibration, layout.RunFolder(target).calibration
    files = [source / name for name in _CALIBRATION if (source / name).is_file()]
    if files:
        copy.mkdir()
    for path in files:
        shutil.copyfile(path, copy / path.name)


def copy_lock(run: Path, target: Path) -> None:
    """What the run's plan resolved to, so that the variant can be made again; nothing where there was no plan.

    Paths of this machine become names: they mean nothing elsewhere, and whoever repeats it gives the folders again.
    """
    if not (run / layout.PLAN_LOCK).is_file():
        return
    lock = read_json(PlanLock, run / layout.PLAN_LOCK)
    plan = replace(
        lock.plan,
        base=_name(lock.plan.base),
        evals_dir=None if lock.plan.evals_dir is None else _name(lock.plan.evals_dir),
        sets_dir=None if lock.plan.sets_dir is None else _name(lock.plan.sets_dir),
    )
    command = " ".join(_name(word) for word in lock.command.split(" "))
    write_record(target / layout.PLAN_LOCK, replace(lock, plan=plan, command=command))


def _name(path: str) -> str:
    """The last part of an absolute path; anything else as it is."""
    return Path(path).name if path.startswith(("/", "~")) else path


def listed(folder: Path) -> tuple[BundleFile, ...]:
    """Every file of `folder` except the manifest, by path, with its size and SHA-256."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != layout.BUNDLE)
    return tuple(
        BundleFile(path.relative_to(folder).as_posix(), path.stat().st_size, file_digest(path)) for path in paths
    )


def sums(folder: Path, manifest: Bundle) -> str:
    """Every file with its digest, the manifest's too, as `sha256sum --check` reads them."""
    lines = [f"{entry.sha256}  {entry.path}" for entry in manifest.files]
    return "\n".join([*lines, f"{file_digest(folder / layout.BUNDLE)}  {layout.BUNDLE}"]) + "\n"
