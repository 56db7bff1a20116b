"""bitsandbytes: NF4 and LLM.int8 as transformers makes and stores them.

What it does: loads the model through transformers with a bitsandbytes config and saves it, before any forward: on a CPU
the first forward repacks the weights in place and what is saved after it is silently wrong. The folder is then loaded
again and must give the logits that the first model gives in memory.

When to use it: nf4 for a quick 4-bit variant without data, and wherever the serving side already speaks bitsandbytes.

What it costs: seconds; the whole model in memory, once in its own type and once quantized.

When it fails: without the packages bitsandbytes and accelerate, and on layers whose widths its kernels do not take. It
cannot be resumed, and vLLM does not run it on a CPU.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qtool import catalog
from qtool.errors import QuantizationError
from qtool.models.architecture import LinearLayer
from qtool.models.checkpoint import open_checkpoint, tokenizer_files
from qtool.models.skeleton import quiet_transformers
from qtool.quantize.contract import FolderResult, FolderWork, Needs
from qtool.quantize.output.ledger import kept_row
from qtool.quantize.output.linking import link_or_copy
from qtool.quantize.output.readings import one_pass
from qtool.quantize.output.verify import prompts_of, run_too
from qtool.quantize.request.recipe import choice_problem, option
from qtool.quantize.request.selection import why_skipped
from qtool.records.variant import LedgerRow, Recipe, Verification

NEEDS = Needs(
    scope="folder",
    schemes=("nf4", "int8"),
    formats=("bitsandbytes",),
    options={"double": "yes or no: nf4's scales are quantized too; default no"},
    package=("bitsandbytes", "bitsandbytes"),
)

_NF4_BLOCK = 64
_SAME_KL = 1e-6  # nats: the same codes read twice; anything else is a corrupted save


def check(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return choice_problem(recipe, "double", "no", ("yes", "no"))


def quantize(work: FolderWork) -> FolderResult:
    """Writes the model as bitsandbytes stores it, and proves that it loads as it was."""
    catalog.require("accelerate", needed_by="method 'bitsandbytes'", extra="bitsandbytes")
    _refuse_widths(work)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # one warning a layer and forward pass otherwise
    model = _load(work.source, _config(work))
    with quiet_transformers():
        model.save_pretrained(work.target)  # before any forward: see the module's docstring
    for name in ("generation_config.json", *tokenizer_files(work.source)):
        if (work.source / name).is_file():
            (work.target / name).unlink(missing_ok=True)
            link_or_copy(work.source / name, work.target / name)
    _compare(work.target, model)
    rows = _rows(work, model)
    return FolderResult(rows, _prove(work, model))


def _config(work: FolderWork) -> Any:
    from transformers import BitsAndBytesConfig

    kept = [layer.name for layer in work.architecture.linears if layer not in work.layers]
    if work.recipe.scheme == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=option(work.recipe, "double", "no") == "yes",
        bnb_4bit_compute_dtype=open_checkpoint(work.source).main_dtype(),
        llm_int8_skip_modules=kept,
    )


def _load(folder: Path, config: Any | None) -> Any:
    from transformers import AutoModelForCausalLM

    settings = {} if config is None else {"quantization_config": config}
    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype="auto" if config is None else open_checkpoint(folder).main_dtype(),
                device_map={"": "cuda" if torch.cuda.is_available() else "cpu"},
                local_files_only=True,
                use_safetensors=True,
                **settings,
            )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise QuantizationError(f"{folder}: transformers cannot load it with bitsandbytes: {reason}") from error
    return model.eval()


def _refuse_widths(work: FolderWork) -> None:
    """NF4's CPU kernel asks for 32 rows and 64 columns; where it does not apply the first forward would raise."""
    if work.recipe.scheme != "nf4":
        return
    wrong = [layer for layer in work.layers if layer.rows % 32 or layer.columns % _NF4_BLOCK]
    if wrong:
        names = ", ".join(f"{layer.name} ({layer.rows} x {layer.columns})" for layer in wrong)
        raise QuantizationError(f"nf4 needs rows in multiples of 32 and columns in multiples of 64; skip: {names}")


def _rows(work: FolderWork, model: Any) -> tuple[LedgerRow, ...]:
    base, written = open_checkpoint(work.source), open_checkpoint(work.target)
    rows = []
    for layer in work.architecture.linears:
        sizes = [written.tensor_bytes(name) for name in written.names if name.startswith(f"{layer.name}.")]
        if layer not in work.layers:
            reason = why_skipped(work.architecture, layer)
            rows.append(kept_row(layer, work.recipe, stored_bytes=sum(sizes), reason=reason))
            continue
        weight = base.tensor(layer.weight).float()
        numbers = _numbers(model.get_submodule(layer.name), work.recipe.scheme).float().cpu()
        rows.append(_row(layer, work.recipe, weight, numbers, sum(sizes)))
    return tuple(rows)


def _row(layer: LinearLayer, recipe: Recipe, weight: Tensor, numbers: Tensor, size: int) -> LedgerRow:
    return LedgerRow(
        layer=layer.name,
        rows=layer.rows,
        columns=layer.columns,
        scheme_asked=recipe.scheme,
        scheme_used=recipe.scheme,
        method_asked="bitsandbytes",
        method_used="bitsandbytes",
        group_size=_NF4_BLOCK if recipe.scheme == "nf4" else -1,
        weight_error=float((numbers - weight).norm() / weight.norm()),
        clipped_share=0.0,
        dead_columns=0,
        tokens_seen=0,
        bytes=size,
    )


def _numbers(module: Any, scheme: str) -> Tensor:
    """The numbers a bitsandbytes layer stands for; must be called before its first forward."""
    from bitsandbytes import functional

    weight = module.weight
    if scheme == "nf4":
        found: Tensor = functional.dequantize_4bit(weight.data, weight.quant_state)
        return found
    scaled: Tensor = weight.data.float() * weight.SCB[:, None].float() / 127
    return scaled


def _compare(folder: Path, model: Any) -> None:
    """Opens what was written and compares every tensor, bit for bit, with the model in memory."""
    written, held = open_checkpoint(folder), model.state_dict()
    for name in written.names:
        if name not in held or not torch.equal(written.tensor(name), held[name].cpu()):
            raise QuantizationError(f"{folder}: tensor {name!r} is not what was in memory")


def _prove(work: FolderWork, model: Any) -> Verification:
    """Loads the written folder again and compares its logits with those of the model that was saved."""
    written = open_checkpoint(work.target)
    prompts = prompts_of(work.target, work.sequences)
    again = _load(work.target, None)
    theirs, ours = _logits(again, prompts), _logits(model, prompts)
    divergence = float((ours.softmax(-1) * (ours.log_softmax(-1) - theirs.log_softmax(-1))).sum(-1).mean())
    if not divergence < _SAME_KL:
        raise QuantizationError(
            f"{work.target}: loaded again it is another model (KL {divergence:.3g} nats); the save is corrupt"
        )
    stored = json.loads((work.target / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    if stored.get("quant_method") != "bitsandbytes":
        raise QuantizationError(f"{work.target}: config.json does not say that bitsandbytes stored it")
    found = Verification(
        tensors_compared=len(written.names),
        tensors_bit_identical=len(written.names),
        logits_prompts=len(prompts),
        logits_max_difference=float((ours - theirs).abs().max()),
        bytes_expected=written.bytes,
        bytes_on_disk=written.bytes,
        lint=(f"loaded again: KL {divergence:.2g} nats against the model in memory",),
    )
    return run_too(work.target, found, prompts, model=again)


def _logits(model: Any, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Logits [tokens of all prompts, vocabulary]."""
    return torch.cat([one_pass(model, prompt) for prompt in prompts])
