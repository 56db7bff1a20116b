"""What a folder is, told from the manifest it holds, and how it was made, in plain text."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qtool.errors import StoreError
from qtool.records.bundle import Bundle
from qtool.records.calibration import Calibration
from qtool.records.evaluation import Evaluation
from qtool.records.latency import LatencyProfile
from qtool.records.report import Report
from qtool.records.variant import Variant
from qtool.report.join import join
from qtool.report.texts.calibration_text import calibration_text
from qtool.report.texts.numbers import bytes_text, count_text, difference_text, median, quantile_text, score_text
from qtool.report.texts.text_table import aligned, text_table
from qtool.report.texts.variant_text import variant_text
from qtool.report.texts.views import recipe_text
from qtool.store import layout
from qtool.store.codec import read_json, read_json_object


@dataclass(frozen=True, slots=True)
class Described:
    """The record of a folder, and the same as text."""

    record: object
    text: str


def describe(folder: Path) -> Described:
    """What `folder` is and how it was made. Raises StoreError where it is nothing that qtool wrote or reads."""
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder")
    for name, reader in _MANIFESTS.items():
        if (folder / name).is_file():
            return reader(folder)
    if layout.RunFolder(folder).variants.is_dir():
        return _unfinished_run(folder)
    if folder.name.endswith(".partial"):
        raise StoreError(f"{folder}: not finished; run the command that was writing it again")
    for several in (_evaluations, _latency):
        found = several(folder)
        if found is not None:
            return found
    if (folder / "config.json").is_file():
        return _model(folder)
    raise StoreError(
        f"{folder}: no run, variant, calibration, evaluation, latency, bundle or model folder (no manifest found)"
    )


def _bundle(folder: Path) -> Described:
    found = read_json(Bundle, folder / layout.BUNDLE)
    return Described(found, bundle_text(found))


def bundle_text(found: Bundle) -> str:
    """Why this variant was bundled, how it is served, its files, and the variant's ledger."""
    runtime = found.runtime
    p99 = f"{runtime.e2e_ms_p99:.0f} ms" if runtime.e2e_ms_p99 is not None else "not known"
    lines = [
        f"bundle {found.name}: variant {found.variant.name} ({recipe_text(found.variant.recipe)})",
        f"  {found.chosen or 'why it was chosen is not recorded'}",
        f"  {count_text(len(found.files), 'file')}, {bytes_text(sum(entry.bytes for entry in found.files))}, "
        f"{count_text(len(found.golden), 'golden prompt')}",
        f"  serves in {runtime.dtype}, context {runtime.context_tokens} tokens, {runtime.max_batch} together, "
        f"{runtime.max_queue} waiting; peak memory {bytes_text(runtime.memory_bytes)}, p99 {p99}",
        "",
        aligned(
            ["file", "bytes", "sha256"], [[entry.path, f"{entry.bytes:,}", entry.sha256[:16]] for entry in found.files]
        ),
    ]
    return "\n".join([*lines, "", variant_text(found.variant)])


def _run(folder: Path) -> Described:
    found = read_json(Report, folder / layout.REPORT)
    return Described(found, f"run {found.run}: {found.command}\n\n{text_table(found)}")


def _unfinished_run(folder: Path) -> Described:
    joined = join(folder)
    lines = [f"run {folder.resolve().name}, no report yet (write one with: qtool report {folder})", ""]
    lines += [f"  {variant.name}: {recipe_text(variant.recipe)}" for variant in joined.variants]
    lines += [f"  note: {note}" for note in joined.notes]
    return Described(joined.variants, "\n".join(lines))


def _variant(folder: Path) -> Described:
    found = read_json(Variant, folder / layout.VARIANT)
    return Described(found, variant_text(found))


def _calibration(folder: Path) -> Described:
    found = read_json(Calibration, folder / layout.CALIBRATION)
    return Described(found, calibration_text(found))


def _evaluations(folder: Path) -> Described | None:
    paths = [path for path in sorted(folder.glob("*.json")) if path.with_name(f"{path.stem}.items.jsonl").is_file()]
    if not paths:
        return None
    found = tuple(read_json(Evaluation, path) for path in paths)
    rows = []
    for entry in found:
        compared = entry.comparison
        verdict = f"{compared.verdict} {difference_text(compared, entry.score)}" if compared else "not compared"
        rows.append([entry.task, f"v{entry.task_version}", score_text(entry.score), verdict, f"seed {entry.seed}"])
    head = (
        f"evaluations of {found[0].variant} (weights {found[0].variant_digest[:12]}) by qtool {found[0].qtool_version}"
    )
    return Described(found, f"{head}\n\n{aligned(['task', 'version', 'score', 'verdict', 'seed'], rows)}")


def _latency(folder: Path) -> Described | None:
    paths = [path for path in sorted(folder.glob("*.json")) if path.with_name(f"{path.stem}.samples.json").is_file()]
    if not paths:
        return None
    found = tuple(read_json(LatencyProfile, path) for path in paths)
    rows = [
        [
            entry.variant,
            quantile_text(median(entry)),
            bytes_text(entry.peak_memory_bytes),
            f"{entry.load_seconds:.2f} s",
        ]
        for entry in found
    ]
    machine = found[0].machine
    head = f"latency on {machine.hardware} ({machine.device}, {count_text(machine.threads, 'thread')})"
    return Described(found, f"{head}\n\n{aligned(['variant', 'median time', 'peak memory', 'load'], rows)}")


def _model(folder: Path) -> Described:
    config = read_json_object(folder / "config.json")
    scheme = "quantized elsewhere, without a ledger" if "quantization_config" in config else "a base model"
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    record = {"kind": "model", "folder": str(folder), "architecture": name, "bytes": weights}
    return Described(record, f"model folder {folder}: {name}, {bytes_text(weights)} of weights, {scheme}")


_MANIFESTS: dict[str, Callable[[Path], Described]] = {
    layout.BUNDLE: _bundle,
    layout.VARIANT: _variant,
    layout.CALIBRATION: _calibration,
    layout.REPORT: _run,
}
