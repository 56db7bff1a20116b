"""GPTQModel: GPTQ by the package of that name, the maintained successor of AutoGPTQ.

What it does: hands the model and the calibration tokens to GPTQModel and takes its GPTQ v1 checkpoint, read back tensor
by tensor. Paths of this machine and sampling defaults that the package writes into the configs are put right.

When to use it: as a second opinion on gptq, and where somebody trusts that package's output.

What it costs: the package (`pip install 'qtool[gptqmodel]'`), the whole model in memory, several times gptq's minutes.

When it fails: without a C++ compiler it is slower; on layers whose widths its packing does not take. It cannot be
resumed, and leaves no output errors in the ledger.
"""

import json
import os

from qtool.errors import QuantizationError
from qtool.formats.schemes import SCHEMES
from qtool.formats.stored_format import read_weight, stored_formats, stored_names
from qtool.formats.stored_weights import StoredFormat, dequantize
from qtool.machine.device import choose_device
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import Checkpoint, open_checkpoint, tokenizer_files
from qtool.quantize.contract import FolderResult, FolderWork, Needs
from qtool.quantize.output.ledger import kept_row
from qtool.quantize.output.linking import link_or_copy
from qtool.quantize.output.verify import prompts_of, run_too
from qtool.quantize.request.selection import why_skipped
from qtool.records.variant import LedgerRow, Recipe, Verification
from qtool.store.codec import read_json_object
from qtool.store.run_directory import write_text

NEEDS = Needs(
    scope="folder",
    schemes=("w4a16", "w8a16"),
    formats=("gptq",),
    sequences=True,
    package=("gptqmodel", "gptqmodel"),
)

_META_OF_THIS_MACHINE = ("offload_to_disk_path", "offload_to_disk")


def check(recipe: Recipe) -> tuple[str, ...]:
    """Nothing can be wrong: there are no options."""
    return ()


def quantize(work: FolderWork) -> FolderResult:
    """Writes the checkpoint GPTQModel makes and reads it back."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # its pools ask for more than a host of two cores has
    from gptqmodel import GPTQModel, QuantizeConfig

    config = QuantizeConfig(
        bits=SCHEMES[work.recipe.scheme].bits,
        group_size=work.recipe.group_size,
        sym=True,
        desc_act=False,
        lm_head=False,
    )
    stored = open_checkpoint(work.source).main_dtype()  # it would take bfloat16, and round what is not quantized
    model = GPTQModel.load(str(work.source), config, device=str(choose_device()), dtype=stored)
    model.quantize([list(row) for row in work.sequences], batch_size=1)
    model.save(str(work.target))
    _put_right(work)
    return FolderResult(_rows(work), _verified(work))


def _put_right(work: FolderWork) -> None:
    for name in ("generation_config.json", *tokenizer_files(work.source)):
        if (work.source / name).is_file():
            (work.target / name).unlink(missing_ok=True)
            link_or_copy(work.source / name, work.target / name)
    for name, key in (("config.json", "quantization_config"), ("quantize_config.json", None)):
        path = work.target / name
        if path.is_file():
            document = read_json_object(path)
            held = document if key is None else document[key]
            assert isinstance(held, dict)  # both files hold objects there
            meta = held.get("meta")
            for private in _META_OF_THIS_MACHINE:
                held.pop(private, None)
                if isinstance(meta, dict):
                    meta.pop(private, None)
            write_text(path, json.dumps(document, indent=2) + "\n")


def _rows(work: FolderWork) -> tuple[LedgerRow, ...]:
    base, written = open_checkpoint(work.source), open_checkpoint(work.target)
    formats = stored_formats(written, work.architecture.linears)
    missing = [layer.name for layer in work.layers if layer.name not in formats]
    if missing:
        raise QuantizationError(f"gptqmodel left {len(missing)} layers unquantized, first {missing[0]}")
    tokens = sum(map(len, work.sequences))
    rows = []
    for layer in work.architecture.linears:
        if layer.name in formats:
            rows.append(_row(layer, work.recipe, base, written, formats[layer.name], tokens))
        else:
            size = written.tensor_bytes(layer.weight) if layer.weight in written.names else 0
            rows.append(kept_row(layer, work.recipe, stored_bytes=size, reason=why_skipped(work.architecture, layer)))
    return tuple(rows)


def _row(
    layer: LinearLayer, recipe: Recipe, base: Checkpoint, written: Checkpoint, form: StoredFormat, tokens: int
) -> LedgerRow:
    weight = base.tensor(layer.weight).float()
    numbers = dequantize(read_weight(written, layer.name, form)).float()
    names = stored_names(layer.name, form) & set(written.names)
    return LedgerRow(
        layer=layer.name,
        rows=layer.rows,
        columns=layer.columns,
        scheme_asked=recipe.scheme,
        scheme_used=recipe.scheme,
        method_asked="gptqmodel",
        method_used="gptqmodel",
        group_size=recipe.group_size,
        weight_error=float((numbers - weight).norm() / weight.norm()),
        clipped_share=0.0,
        dead_columns=0,
        tokens_seen=tokens,
        bytes=sum(written.tensor_bytes(name) for name in names),
    )


def _verified(work: FolderWork) -> Verification:
    """There is nothing in memory to compare with, so nothing is claimed compared; the engine runs it."""
    written = open_checkpoint(work.target)
    found = Verification(
        tensors_compared=0,
        tensors_bit_identical=0,
        logits_prompts=0,
        logits_max_difference=0.0,
        bytes_expected=written.bytes,
        bytes_on_disk=written.bytes,
        lint=("made by gptqmodel: read back, not compared with memory",),
    )
    return run_too(work.target, found, prompts_of(work.target, work.sequences))
