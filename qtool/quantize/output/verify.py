"""Opens a written variant again from disk and compares it with what was in memory, before anyone calls it done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from qtool.data.probe_text import probe_rows, spread_ids
from qtool.errors import ModelError, QuantizationError
from qtool.formats.schemes import LayerScheme
from qtool.formats.stored_format import read_weight, stored_formats
from qtool.formats.stored_weights import dequantize
from qtool.formats.tensor_names import weights_as_used
from qtool.models.architecture import Architecture
from qtool.models.checkpoint import open_checkpoint
from qtool.models.skeleton import vocabulary_of
from qtool.quantize.blocks.finished_parts import PartRecord, tensor_digest
from qtool.quantize.output.engine_trial import run_in_engine
from qtool.quantize.output.lint import lint, unread_by_transformers
from qtool.quantize.output.readings import NotForTransformers, beside_loaded, beside_own_reading, beside_transformers
from qtool.records.variant import Verification

PROMPTS = 8
_PROMPT_TOKENS = 24
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
    """What was compared; `problem` says what differs where the folder is no damaged file but another model.

    Raises QuantizationError on the first tensor that is not what was in memory. Then the engine that will serve it
    runs `prompts`, and what it wrote is looked at by qtool's own reading, block by block, and, unless `whole` is False,
    by transformers without qtool; None does so where memory allows.
    """
    compared, size = _compare_tensors(folder, expected, architecture)
    notes = list(lint(architecture, expected.schemes, expected.layout))
    cannot = unread_by_transformers(architecture, expected.schemes, expected.layout)
    readable = expected.layout == "compressed-tensors" and cannot is None
    unread = "as asked" if whole is False else "too little memory"
    if not readable:
        unread = "for the reason above" if cannot else "format"
    if whole is None:
        whole = readable and _fits(architecture)
    trial = run_in_engine(folder, prompts)
    problem, difference, asked = trial.problem, None, bool(whole and readable)
    try:
        if asked:
            try:
                difference = beside_transformers(folder, trial)
            except NotForTransformers as error:
                asked, unread = False, str(error)
        if not asked:
            notes.append(f"not loaded whole by transformers: {unread}")
            beside_own_reading(folder, trial)
    except (QuantizationError, ModelError) as error:
        problem = problem or str(error)
    return Verification(
        tensors_compared=compared,
        tensors_bit_identical=compared,
        logits_prompts=0 if difference is None else len(prompts),
        logits_max_difference=difference or 0.0,
        bytes_expected=expected.bytes,
        bytes_on_disk=size,
        lint=(*notes, *trial.notes),
        engine_tokens=trial.tokens,
        problem=problem,
    )


def run_too(
    folder: Path, found: Verification, prompts: Sequence[Sequence[int]], *, model: Any | None = None
) -> Verification:
    """`found`, what a method compared that wrote `folder` itself, and what the engine does with it: beside `model`, as
    transformers loads the folder, or beside qtool's own reading."""
    trial = run_in_engine(folder, prompts)
    problem = trial.problem
    try:
        if model is None:
            beside_own_reading(folder, trial)
        else:
            beside_loaded(folder, trial, model)
    except QuantizationError as error:
        problem = problem or str(error)
    return replace(found, lint=(*found.lint, *trial.notes), engine_tokens=trial.tokens, problem=problem)


def prompts_of(folder: Path, sequences: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Eight prompts: the beginnings of `sequences`, filled up with plain text in tokens of the folder's own tokenizer.

    A folder without a tokenizer has ids from all over its vocabulary instead.
    """
    vocabulary = vocabulary_of(folder)
    begun = [tuple(row[:_PROMPT_TOKENS]) for row in sequences if len(row) >= _PROMPT_TOKENS]
    if len(begun) < PROMPTS:
        begun += probe_rows(folder, vocabulary, tokens=_PROMPT_TOKENS)
    return tuple(begun[:PROMPTS]) or (spread_ids(vocabulary, tokens=_PROMPT_TOKENS),)


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
