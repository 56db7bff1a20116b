"""What lies beside the weights of a variant, and the manifest that makes the folder one."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from qtool import __version__
from qtool.formats import registry
from qtool.machine.peak_memory import peak_bytes
from qtool.models.checkpoint import open_checkpoint, tokenizer_digest, tokenizer_files, weights_digest
from qtool.models.skeleton import untie
from qtool.quantize.output.layouts import quantization_config
from qtool.quantize.output.ledger import fallbacks
from qtool.quantize.request.prepare import Order
from qtool.records.variant import HeldOutChange, LedgerRow, Variant, Verification
from qtool.store.run_directory import write_text


def write_beside(order: Order, folder: Path) -> None:
    """Everything of the checkpoint but the weights: config, tokenizer, generation config."""
    config = dict(open_checkpoint(order.source).config)
    if config.get("tie_word_embeddings") and not order.architecture.tied:
        untie(config)  # the files hold another head than the embedding, whatever the base's config says
    kept = sorted(_left_alone(order))
    config["quantization_config"] = quantization_config(order.recipe, order.selection.schemes, kept)
    write_text(folder / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    for name, text in registry.written(order.recipe.format).files(config["quantization_config"]).items():
        write_text(folder / name, text)
    for name in ("generation_config.json", *tokenizer_files(order.source)):
        if (order.source / name).is_file():
            shutil.copyfile(order.source / name, folder / name)


def _left_alone(order: Order) -> set[str]:
    """Names of modules that servers must not take for quantized, by the model's names and by the files': servers build
    routers as linear layers, and name modules as published checkpoints do."""
    assert order.names is not None  # something is quantized here
    names = {*order.selection.kept, *order.architecture.routers}
    return names | {order.names.stored(f"{name}.weight").removesuffix(".weight") for name in names}


@dataclass(frozen=True, slots=True)
class Made:
    """What a method made, beside the files: see the fields of the same names of `Variant`."""

    rows: tuple[LedgerRow, ...]
    verification: Verification | None
    held_out: HeldOutChange | None = None
    threads: int | None = None
    notes: tuple[str, ...] = ()


def manifest_of(order: Order, folder: Path, made: Made, *, seconds: float) -> Variant:
    """The manifest of the finished `folder`."""
    return Variant(
        format_version=1,
        name=order.name,
        base=order.identity,
        recipe=order.recipe,
        weights_digest=weights_digest(folder),
        tokenizer_digest=tokenizer_digest(folder),
        calibration_digest=order.calibration_digest,
        layers=made.rows,
        verification=made.verification,
        fallbacks=fallbacks(made.rows),
        bytes=open_checkpoint(folder).bytes,
        seconds=seconds,
        peak_memory_bytes=peak_bytes(),
        qtool_version=__version__,
        held_out=made.held_out,
        threads=made.threads,
        notes=made.notes,
    )
