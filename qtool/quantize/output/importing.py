"""A checkpoint that somebody else made, taken in as a variant: read strictly, verified, and given a ledger."""

import time
from collections import Counter
from pathlib import Path

from qtool import __version__
from qtool.errors import MismatchError, ModelError
from qtool.formats.gguf.note import KEPT_AS_CODES, PLAIN, GgufNote, gguf_note
from qtool.formats.registry import of_packing
from qtool.formats.stored_format import read_weight, stored_formats, stored_names
from qtool.formats.stored_weights import StoredFormat, dequantize
from qtool.formats.tensor_names import weights_as_used
from qtool.machine.peak_memory import peak_bytes, reset_peak
from qtool.models.architecture import Architecture, LinearLayer, describe
from qtool.models.checkpoint import INDEX_NAME, Checkpoint, open_checkpoint, tokenizer_digest, tokenizer_files
from qtool.models.checkpoint import weights_digest as digest_of
from qtool.models.identity import identify
from qtool.models.skeleton import empty_model
from qtool.models.tokenizer import load_tokenizer
from qtool.models.unfolded import unfold
from qtool.progress import Progress
from qtool.quantize.output.ledger import kept_row, nonfinite
from qtool.quantize.output.linking import link_or_copy
from qtool.quantize.request.recipe import DEFAULT_FORMAT
from qtool.records.variant import LedgerRow, Recipe, SchemeName, Variant
from qtool.store import layout
from qtool.store.run_directory import explained, new_folder, write_record

METHOD = "imported"
_GENERATION = "generation_config.json"
_BESIDE = ("config.json", _GENERATION, "quantize_config.json", "recipe.yaml")
_NOT_STORED = "rotary_emb.inv_freq"  # old checkpoints hold it; models compute it


def import_variant(
    folder: Path, output: Path, *, name: str, base: Path | None, progress: Progress, replace: bool = False
) -> Variant:
    """Makes the checkpoint in `folder` the variant `name` in the new folder `output`.

    `base` is the model it was made from; without it the variant is its own base. What was a GGUF file takes the base's
    tokenizer, which was only rebuilt from the file, where the tokens are the same. Raises ModelError for a quant_method
    qtool cannot read and for missing, unexpected or non-finite tensors, MismatchError where `base` is another model.
    """
    started = time.monotonic()
    reset_peak()
    checkpoint = weights_as_used(folder)
    architecture = describe(folder)
    formats = stored_formats(checkpoint, architecture.linears)
    _check_names(checkpoint, architecture, formats)
    if base is not None and describe(base).linears != architecture.linears:
        raise MismatchError(f"{folder}: its layers are not those of {base}; give the model it was made from")
    note = gguf_note(folder)
    tokens_from = base if base is not None and note is not None else folder
    if tokens_from != folder and not _tokens(tokens_from).items() <= _tokens(folder).items():
        raise MismatchError(f"{folder}: its tokens are not those of {base}; give the model the file was made from")
    recipe = _recipe(checkpoint, architecture, formats, note)
    rows = []
    with progress.track("reading every layer", len(architecture.linears), "layers") as advance:
        for layer in architecture.linears:
            rows.append(_row(checkpoint, layer, formats.get(layer.name), recipe))
            advance(1)
    with new_folder(output, replace=replace) as target:
        with explained(target):
            _link(checkpoint, target, tokens_from)
        variant = Variant(
            format_version=1,
            name=name,
            base=identify(base or folder),
            recipe=recipe,
            weights_digest=digest_of(target),
            tokenizer_digest=tokenizer_digest(target),
            calibration_digest=None,
            layers=tuple(rows),
            verification=None,
            fallbacks=0,
            bytes=open_checkpoint(folder).bytes if note is None else note.bytes,
            seconds=time.monotonic() - started,
            peak_memory_bytes=peak_bytes(),
            qtool_version=__version__,
        )
        write_record(target / layout.VARIANT, variant)
    return variant


def _check_names(checkpoint: Checkpoint, architecture: Architecture, formats: dict[str, StoredFormat]) -> None:
    """Every tensor the model needs must be there, and nothing else: codes nobody reads are a model loaded wrongly."""
    wanted = {name for name, _ in unfold(empty_model(checkpoint.folder)).named_parameters(remove_duplicate=False)}
    if architecture.tied:
        wanted.discard(f"{architecture.head}.weight")
    allowed = set(wanted) | {f"{architecture.head}.weight"}
    for layer, form in formats.items():
        wanted.discard(f"{layer}.weight")
        allowed |= stored_names(layer, form)
    present = set(checkpoint.names)
    for what, names in (("missing", wanted - present), ("unexpected", present - allowed)):
        names = {name for name in names if not name.endswith(_NOT_STORED)}
        if names:
            raise ModelError(f"{checkpoint.folder}: {len(names)} tensors are {what}, first {min(names)!r}")


def _tokens(folder: Path) -> dict[str, int]:
    """Every token with its id."""
    found: dict[str, int] = load_tokenizer(folder).get_vocab()
    return found


def _recipe(
    checkpoint: Checkpoint, architecture: Architecture, formats: dict[str, StoredFormat], note: GgufNote | None
) -> Recipe:
    if note is not None and not all(kind in KEPT_AS_CODES for kind, _ in note.types if kind not in PLAIN):
        types = ", ".join(f"{count} {kind}" for kind, count in note.types)
        return Recipe(scheme="gguf", method=METHOD, skip=(), format="none", options=(("types", types),))
    kept = tuple(layer.name for layer in architecture.linears if layer.name not in formats)
    if not formats:
        return Recipe(scheme="base", method=METHOD, skip=(), format="none")
    form, _ = Counter(formats.values()).most_common(1)[0]
    stored = of_packing(form.packing)
    return Recipe(
        scheme=_scheme(form),
        method=METHOD,
        group_size=form.group_size,
        symmetric=form.symmetric,
        activations=form.activations,
        skip=kept,
        format=stored.QUANT_METHOD if stored.SCHEMES else DEFAULT_FORMAT,  # a recipe names what can be written
        options=(("packing", form.packing),),
    )


def _scheme(form: StoredFormat) -> SchemeName:
    if form.packing == "float-quantized":
        return "fp8"
    if form.activations != "none":
        return "w8a8"
    return "w4a16" if form.bits == 4 else "w8a16"


def _row(checkpoint: Checkpoint, layer: LinearLayer, form: StoredFormat | None, recipe: Recipe) -> LedgerRow:
    if form is None:
        size = checkpoint.tensor_bytes(layer.weight) if layer.weight in checkpoint.names else 0
        wrong = nonfinite(checkpoint.tensor(layer.weight)) if size else 0
        _refuse_nonfinite(checkpoint, layer, wrong)
        return kept_row(layer, recipe, stored_bytes=size, reason="stored unquantized")
    numbers = dequantize(read_weight(checkpoint, layer.name, form))
    if tuple(numbers.shape) != (layer.rows, layer.columns):
        raise ModelError(f"{layer.name}: stores {tuple(numbers.shape)} where {(layer.rows, layer.columns)} is expected")
    _refuse_nonfinite(checkpoint, layer, nonfinite(numbers))
    names = stored_names(layer.name, form) & set(checkpoint.names)
    return LedgerRow(
        layer=layer.name,
        rows=layer.rows,
        columns=layer.columns,
        scheme_asked=_scheme(form),
        scheme_used=_scheme(form),
        method_asked=METHOD,
        method_used=METHOD,
        group_size=form.group_size,
        weight_error=0.0,
        clipped_share=0.0,
        dead_columns=0,
        tokens_seen=0,
        bytes=sum(checkpoint.tensor_bytes(name) for name in names),
        reason=f"made elsewhere, stored as {form.packing}; errors are not known",
    )


def _refuse_nonfinite(checkpoint: Checkpoint, layer: LinearLayer, wrong: int) -> None:
    if wrong:
        raise ModelError(f"{checkpoint.folder}: {layer.name}: {wrong} of its weights are NaN or infinite")


def _link(checkpoint: Checkpoint, target: Path, tokens_from: Path) -> None:
    for name in sorted({*_BESIDE, *checkpoint.shards, INDEX_NAME}):
        if (checkpoint.folder / name).is_file():
            link_or_copy(checkpoint.folder / name, target / name)
    for name in tokenizer_files(tokens_from):
        link_or_copy(tokens_from / name, target / name)
    if tokens_from != checkpoint.folder and (tokens_from / _GENERATION).is_file():
        (target / _GENERATION).unlink(missing_ok=True)
        link_or_copy(tokens_from / _GENERATION, target / _GENERATION)
