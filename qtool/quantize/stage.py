"""The quantize stage: a model folder and a recipe in, a verified variant folder out."""

import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from qtool import __version__
from qtool.errors import QtoolError, StoreError
from qtool.machine.device import choose_device
from qtool.machine.peak_memory import reset_peak
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import open_checkpoint
from qtool.progress import Progress
from qtool.quantize.blocks.finished_parts import Parts
from qtool.quantize.blocks.layerwise import PROPAGATE, propagated
from qtool.quantize.blocks.sequential import Job, measure_outcome, quantize_blocks
from qtool.quantize.contract import BlockMethod, FolderMethod, FolderWork
from qtool.quantize.output.folder import Made, manifest_of, write_beside
from qtool.quantize.output.layouts import layer_bytes, scale_dtype, stored_format
from qtool.quantize.output.ledger import enforce, kept_row, stack_row
from qtool.quantize.output.lint import emulated_here
from qtool.quantize.output.notes import notes_of
from qtool.quantize.output.verify import Expected, prompts_of, verify
from qtool.quantize.request.prepare import Order, prepare, with_dynamic_inputs
from qtool.records.unverified import refuse_unverified
from qtool.records.variant import LedgerRow, Recipe, Variant
from qtool.store import layout
from qtool.store.digest import record_digest
from qtool.store.run_directory import explained, new_folder, refuse_output, write_record


def quantize(
    model: Path,
    recipe: Recipe,
    output: Path,
    *,
    name: str,
    calibration: Path | None,
    progress: Progress,
    replace: bool = False,
    strict: float | None = None,
    whole_check: bool | None = None,
    device: str = "auto",
) -> Variant:
    """Writes the variant `name` of `model` into the new folder `output` and returns its manifest.

    A killed run leaves what it finished; the same call continues and ends with the same bytes. `strict` is the largest
    share of layers that may fall back to another method. `whole_check` loads the result with transformers and
    compares; None does so where memory allows. Raises PlanError, QuantizationError, MismatchError, NumericError or
    StoreError; then `output` does not exist, but for UnverifiedVariant: what was made is kept there to be looked at.
    """
    started = time.monotonic()
    reset_peak()
    refuse_output(output, replace=replace)
    order = prepare(model, recipe, name=name, calibration=calibration, progress=progress)
    for note in (*notes_of(order), *filter(None, (emulated_here(order.recipe.scheme),))):
        progress.note(note)
    with new_folder(output, resume=True, replace=replace) as folder:
        try:
            made = _make(order, folder, progress, whole_check, device)
            enforce(made.rows, strict=strict)
            variant = manifest_of(order, folder, made, seconds=time.monotonic() - started)
            write_record(folder / layout.VARIANT, variant)
        except QtoolError as error:
            if not isinstance(error, StoreError):  # a full disk can be helped and continued; this cannot
                shutil.rmtree(folder, ignore_errors=True)
            raise
    refuse_unverified(variant, output)
    return variant


def _make(order: Order, folder: Path, progress: Progress, whole_check: bool | None, device: str) -> Made:
    if order.needs.scope == "folder":
        work = FolderWork(
            source=order.source,
            target=folder,
            recipe=order.recipe,
            architecture=order.architecture,
            layers=tuple(layer for layer in order.architecture.linears if layer.name in order.selection.schemes),
            sequences=order.rows,
            progress=progress,
        )
        with explained(folder):
            result = cast(FolderMethod, order.method).quantize(work)
        return Made(result.rows, result.verification)
    return _make_blocks(order, folder, progress, whole_check, device)


def _make_blocks(order: Order, folder: Path, progress: Progress, whole_check: bool | None, device: str) -> Made:
    parts = Parts(
        folder, count=len(order.architecture.blocks) + 1, signature=_signature(order, device), threads=_threads()
    )
    with _computed_by(parts.threads, progress):
        job = job_of(order, device, progress)
        records = quantize_blocks(job, parts)
        held_out = measure_outcome(job, parts)
    order = with_dynamic_inputs(order, [name for record in records for name in record.dynamic])
    with explained(folder):
        write_beside(order, folder)
    parts.join(records)
    expected = Expected(records, expected_bytes(order), order.selection.schemes, order.recipe.format)
    prompts = prompts_of(folder, (*order.held_out, *order.rows))
    verification = verify(folder, expected, order.architecture, prompts, whole=whole_check)
    parts.finish()
    rows = {row.layer: row for record in records for row in record.rows}
    assert order.weights is not None  # something is quantized here
    stacks = (
        stack_row(stack, order.recipe, stored_bytes=order.weights.tensor_bytes(stack.name))
        for stack in order.architecture.stacks
    )
    ledger = (*(rows[layer.name] for layer in order.architecture.linears), *stacks, *_other_rows(order))
    return Made(ledger, verification, held_out, parts.threads, notes_of(order))


def _other_rows(order: Order) -> Iterator[LedgerRow]:
    """The rows of what no scheme can hold."""
    assert order.weights is not None  # something is quantized here
    for name, kind in order.others:
        if f"{name}.weight" in order.weights.names:
            rows, *columns = order.weights.shape(f"{name}.weight")
            layer = LinearLayer(name, rows, math.prod(columns), None)
            size = order.weights.tensor_bytes(f"{name}.weight")
            yield kept_row(layer, order.recipe, stored_bytes=size, reason=f"{kind}: no linear layer, stays as it is")


def job_of(order: Order, device: str, progress: Progress) -> Job:
    """The order as work for the sequential quantizer."""
    return Job(
        source=order.source,
        recipe=order.recipe,
        selection=order.selection,
        method=cast(BlockMethod, order.method),
        rows=order.rows,
        held_out=order.held_out,
        input_scales=order.input_scales,
        device=choose_device(device),
        progress=progress,
        propagates=_propagates(order),
    )


def _propagates(order: Order) -> bool:
    if PROPAGATE not in order.needs.options:
        return False
    tokens = sum(map(len, order.rows))
    layers = (layer for layer in order.architecture.linears if layer.name in order.selection.schemes)
    return any(propagated(order.recipe, tokens=tokens, columns=layer.columns) > 0 for layer in layers)


def expected_bytes(order: Order) -> int:
    """Size of all stored tensors of the variant, from shapes alone."""
    checkpoint = order.weights or open_checkpoint(order.source)
    schemes = order.selection.schemes
    quantized = {layer.name: layer for layer in order.architecture.linears if layer.name in schemes}
    total = 0
    for name in checkpoint.names:
        layer = quantized.get(name.removesuffix(".weight"))
        if layer is None or not name.endswith(".weight"):
            total += checkpoint.tensor_bytes(name)
            continue
        form = stored_format(schemes[layer.name], order.recipe.format)
        scale_bytes = scale_dtype(order.recipe.format, checkpoint.dtype(name)).itemsize
        total += layer_bytes(layer.rows, layer.columns, form, scale_bytes)
    return total


def _threads() -> int:
    import torch

    return torch.get_num_threads()


@contextlib.contextmanager
def _computed_by(threads: int, progress: Progress) -> Iterator[None]:
    """Computes with as many threads as the run that is continued here: another number may end in other bytes."""
    import torch

    before = torch.get_num_threads()
    if threads != before:
        progress.note(f"continues a killed run, with its number of threads ({threads}): so the bytes stay the same")
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _signature(order: Order, device: str) -> str:
    import torch

    return record_digest(
        {
            "recipe": order.recipe,
            "base": order.identity.weights_digest,
            "calibration": order.calibration_digest,
            "qtool": __version__,
            "torch": torch.__version__,
            "device": str(choose_device(device)),
        }
    )
