"""`bundle`: one folder with all that a server needs to answer, and to know that it answers as it was measured."""

from pathlib import Path

from qtool import __version__
from qtool.bundle import bill
from qtool.bundle.card import commands, head
from qtool.bundle.choose import check_unchanged, choose, judged_anew
from qtool.bundle.contents import SUMS, copy_calibration, copy_lock, copy_variant, listed, sums
from qtool.bundle.deploy import render, write_deploy
from qtool.bundle.golden import golden_prompts
from qtool.bundle.settings import best_level, deploy_settings, measured_dtype, runtime_settings
from qtool.errors import StoreError
from qtool.progress import Progress
from qtool.records.bundle import Bundle, GoldenPrompt
from qtool.records.report import ReportRow
from qtool.records.unverified import refuse_unverified
from qtool.report.html import page
from qtool.store import layout
from qtool.store.run_directory import new_folder, write_record, write_text

FORMAT_VERSION = 1
_STEPS = 4


def bundle(
    run: Path,
    *,
    variant: str | None,
    output: Path | None,
    progress: Progress,
    replace: bool = False,
    allow_unverified: bool = False,
) -> Bundle:
    """Writes the bundle of `variant`, or of the recommended one, into a new folder and returns its manifest.

    Raises UsageError where none is recommended or named, MismatchError where the variant is not what was evaluated,
    UnverifiedVariant where its verification failed, unless `allow_unverified` takes it all the same.
    """
    target = output or layout.RunFolder(run).bundle
    if target.exists() and not replace:
        raise StoreError(f"{target}: already exists; make it again with --replace, or give another folder with -o")
    report = judged_anew(run, progress)
    row, chosen = choose(report, variant)
    source = layout.RunFolder(run).variant(row.variant.name)
    refuse_unverified(row.variant, source, allowed=allow_unverified)
    with (
        progress.track("bundle", _STEPS, "steps") as advance,
        new_folder(target, replace=replace) as folder,
    ):
        check_unchanged(source, row)
        copy_variant(source, folder)
        copy_calibration(run, folder)
        copy_lock(run, folder)
        write_text(folder / layout.REPORT_PAGE, page(report))
        advance(1)
        dtype, context_tokens, golden = _observe(run, row, folder)
        advance(1)
        manifest = _describe(folder, row, chosen, dtype=dtype, context_tokens=context_tokens, golden=golden)
        advance(1)
        write_record(folder / layout.BUNDLE, manifest)
        write_text(folder / SUMS, sums(folder, manifest))
        advance(1)
    return manifest


def _observe(run: Path, row: ReportRow, folder: Path) -> tuple[str, int, tuple[GoldenPrompt, ...]]:
    """Number type, context and golden prompts of the copied weights, from the engine that will serve them."""
    from qtool.engine.load import open_engine

    name = measured_dtype(row)
    best = best_level(row.latency)
    engine = open_engine(folder, dtype=name, slots=best.concurrency if best else 8)
    name = engine.dtype
    try:
        golden = golden_prompts(run, row.variant.name, engine, folder, name)
        return name, engine.status().context_tokens, golden
    finally:
        engine.close()


def _describe(
    folder: Path,
    row: ReportRow,
    chosen: str,
    *,
    dtype: str,
    context_tokens: int,
    golden: tuple[GoldenPrompt, ...],
) -> Bundle:
    """Writes model card and deployment files, and returns the manifest that lists everything."""
    model = f"{row.variant.base.name}-{row.variant.name}"
    runtime = runtime_settings(row, dtype=dtype, context_tokens=context_tokens)
    write_deploy(folder, deploy_settings(row, runtime, model=model, qtool_version=__version__))
    base = row.variant.base
    source = base.name if Path(base.source).is_absolute() else base.source  # a path means nothing elsewhere
    values: dict[str, object] = {"row": row, "model": model, "source": source, "chosen": chosen, "golden": golden}
    values |= {"head": head(row, model=model, source=source), "commands": commands(row), "licence": base.licence}
    card = render("README.md.j2", values)
    (folder / "README.md").write_text(card, encoding="utf-8")
    materials = bill.bill_of_materials(row.variant, listed(folder), model=model, qtool_version=__version__)
    write_text(folder / bill.FILE, materials)
    return Bundle(
        format_version=FORMAT_VERSION,
        name=model,
        variant=row.variant,
        files=listed(folder),
        golden=golden,
        runtime=runtime,
        report_row=row,
        qtool_version=__version__,
        chosen=chosen,
    )
