"""Opens a written variant again from disk and compares it with what was in memory, before anyone calls it done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from qtool.errors import ModelError, QuantizationError
from qtool.models.architecture import Architecture
from qtool.models.checkpoint import open_checkpoint
from qtool.models.skeleton import quiet_transformers
from qtool.models.stored_format import read_weight, stored_formats
from qtool.models.stored_names import weights_as_used
from qtool.models.stored_weights import dequantize
from qtool.quantize.formats import LayerScheme
from qtool.quantize.lint import lint, unread_by_transformers
from qtool.quantize.parts import PartRecord, tensor_digest
from qtool.quantize.streaming import StreamedModel
from qtool.records.variant import Verification

PROMPTS = 8
_PROMPT_TOKENS = 24
_NEW_TOKENS = 8
_SPARE_MEMORY = 3  # the whole model is loaded by transformers where this many times its dense size is free


@dataclass(frozen=True, slots=True)
class Expected:
    """What must be found on disk: the parts as they were in memory, the size, and how each layer was to be stored."""

    parts: Sequence[PartRecord]
    bytes: int
    schemes: Mapping[str, LayerScheme]
    layout: str


def verify(
    folder: Path,
    expected: Expected,
    architecture: Architecture,
    prompts: Sequence[Sequence[int]],
    *,
    whole: bool | None,
) -> Verification:
    """What was compared. Raises QuantizationError on the first thing that differs.

    `whole` loads the folder with transformers, without qtool, and compares logits and greedy tokens; None does so
    where memory allows.
    """
    compared, size = _compare_tensors(folder, expected, architecture)
    notes = list(lint(architecture, expected.schemes, expected.layout))
    difference = 0.0
    ids = torch.tensor([list(prompt[:_PROMPT_TOKENS]) for prompt in prompts], dtype=torch.long)
    cannot = unread_by_transformers(architecture, expected.schemes, expected.layout)
    readable = expected.layout == "compressed-tensors" and cannot is None
    unread = "as asked" if whole is False else "too little memory"
    if not readable:
        unread = "for the reason above" if cannot else "format"
    if whole is None:
        whole = readable and _fits(architecture)
    if whole and readable:
        difference = _compare_with_transformers(folder, ids)
    else:
        _check_finite(StreamedModel(folder).logits([ids])[0], folder)
        notes.append(f"not loaded whole by transformers: {unread}")
    return Verification(
        tensors_compared=compared,
        tensors_bit_identical=compared,
        logits_prompts=len(prompts),
        logits_max_difference=difference,
        bytes_expected=expected.bytes,
        bytes_on_disk=size,
        lint=tuple(notes),
    )


def prompts_of(sequences: Sequence[Sequence[int]], vocabulary: int) -> tuple[tuple[int, ...], ...]:
    """Eight prompts of equal length: the beginnings of `sequences`, filled up with fixed pseudo-random tokens."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, vocabulary, (PROMPTS, _PROMPT_TOKENS), generator=generator).tolist()
    long_enough = [tuple(row[:_PROMPT_TOKENS]) for row in sequences if len(row) >= _PROMPT_TOKENS]
    return tuple((long_enough + [tuple(row) for row in drawn])[:PROMPTS])


def _compare_tensors(folder: Path, expected: Expected, architecture: Architecture) -> tuple[int, int]:
    checkpoint = open_checkpoint(folder)
    used = weights_as_used(folder)
    digests = {name: digest for part in expected.parts for name, digest in part.digests.items()}
    if set(checkpoint.names) != set(digests):
        odd = sorted(set(checkpoint.names) ^ set(digests))
        raise QuantizationError(f"{folder}: {len(odd)} tensors are missing or too many, first {odd[0]!r}")
    for name, digest in digests.items():
        if tensor_digest(checkpoint.tensor(name)) != digest:
            raise QuantizationError(f"{folder}: tensor {name!r} is not what was in memory; the disk may be failing")
    formats = stored_formats(used, architecture.linears)
    numbers = {layer: digest for part in expected.parts for layer, digest in part.numbers.items()}
    if set(formats) != set(numbers):
        odd = sorted(set(formats) ^ set(numbers))
        raise QuantizationError(f"{folder}: config.json does not match the quantized layers, first {odd[0]!r}")
    for layer, digest in numbers.items():
        if tensor_digest(dequantize(read_weight(used, layer, formats[layer]))) != digest:
            raise QuantizationError(f"{folder}: {layer} does not mean the numbers that were computed")
    if checkpoint.bytes != expected.bytes:
        raise QuantizationError(f"{folder}: holds {checkpoint.bytes} bytes of tensors where {expected.bytes} belong")
    return len(digests), checkpoint.bytes


def _fits(architecture: Architecture) -> bool:
    dense = 4 * sum(layer.rows * layer.columns for layer in architecture.linears)
    return bool(psutil.virtual_memory().available > _SPARE_MEMORY * dense)


def _compare_with_transformers(folder: Path, ids: Tensor) -> float:
    """Largest difference of logits between qtool's reading and transformers' own, over prompts and greedy answers."""
    model = load_with_transformers(folder)
    with quiet_transformers():  # compressed-tensors unpacks, with bars, in the first forward
        longer = _greedy(model, ids)
    with torch.inference_mode():
        theirs = model(longer, use_cache=False).logits.float()
    ours = StreamedModel(folder, dtype=model.dtype).logits([longer])[0]  # another type would differ by its rounding
    _check_finite(ours, folder)
    difference = float((ours - theirs).abs().max())
    scale = float(theirs.std())
    allowed = scale * (0.1 if model.dtype is torch.bfloat16 else 1e-3)  # order of summation; bfloat16 has 8 bits
    if difference > allowed:
        raise QuantizationError(
            f"{folder}: transformers reads it differently: logits differ by {difference:.3g} (allowed {allowed:.3g})"
        )
    _check_greedy(folder, ours, longer, ids.shape[1], slack=2 * difference)
    return difference


def load_with_transformers(folder: Path) -> Any:
    """The variant as any user of transformers gets it, on the CPU."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    from qtool.models.checkpoint import read_config

    stored = read_config(folder)["quantization_config"]
    groups = stored["config_groups"].values()
    dense = CompressedTensorsConfig(dequantize=True) if any(not g["weights"]["symmetric"] for g in groups) else None
    try:
        with quiet_transformers():
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype="auto",
                output_loading_info=True,
                **({} if dense is None else {"quantization_config": dense}),
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {str(error).strip().splitlines()[0]}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading.get(problem):
            raise QuantizationError(
                f"{folder}: transformers reports {problem}: {sorted(map(str, loading[problem]))[0]}"
            )
    return model.eval()


def _greedy(model: Any, ids: Tensor) -> Tensor:
    """`ids` followed by the tokens that transformers generates greedily, stop tokens ignored."""
    with torch.inference_mode():
        for _ in range(_NEW_TOKENS):
            logits = model(ids, use_cache=False).logits[:, -1]
            ids = torch.cat((ids, logits.argmax(-1, keepdim=True)), dim=1)
    return ids


def _check_greedy(folder: Path, logits: Tensor, longer: Tensor, prompt: int, *, slack: float) -> None:
    """Each greedy token must be qtool's choice too, or lie within `slack` of it: a tie to the last bit."""
    chosen = logits[:, prompt - 1 : -1].gather(-1, longer[:, prompt:, None]).squeeze(-1)
    behind = logits[:, prompt - 1 : -1].amax(-1) - chosen
    if float(behind.max()) > slack:
        raise QuantizationError(f"{folder}: transformers generates other greedy tokens than qtool")


def _check_finite(logits: Tensor, folder: Path) -> None:
    if not bool(torch.isfinite(logits).all()):
        raise QuantizationError(f"{folder}: the variant's logits are NaN or infinite")
