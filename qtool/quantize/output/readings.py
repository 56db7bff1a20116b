"""A written variant as qtool reads it, block by block, as transformers reads it, and as the engine runs it."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qtool.engine.layers.own_forward import use_attention, whole_pass
from qtool.errors import ModelError, QuantizationError
from qtool.models.checkpoint import read_config, tokenizer_files
from qtool.models.foreign import blamed_on, reason
from qtool.models.skeleton import attention_of, quiet_transformers
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.quantize.output.agreement import Parting, Passes, Rounding, compare, partings_of, rounding_of, worst
from qtool.quantize.output.engine_trial import Trial

_NUDGED = 1 / 8
_NUDGE = 2.0**-17  # a last bit of float32 turns so few 8-bit inputs into their next step that it says little


class NotForTransformers(ModelError):
    """transformers has no code that loads this architecture from compressed weights, whatever they are."""


def beside_transformers(folder: Path, trial: Trial) -> float:
    """Largest difference of logits between qtool's reading and transformers' own, both in one pass over each row of
    the trial. Raises QuantizationError, naming the place, where that or what the engine wrote is more than rounding.
    """
    model = load_with_transformers(folder)

    def passes(attention: str) -> Iterable[Tensor]:
        with computed_another_way(model, attention):
            for row in trial.rows:
                with quiet_transformers():  # compressed-tensors unpacks, with bars, in the first forward
                    yield one_pass(model, row)

    theirs = checked_finite(list(passes("sdpa")), "transformers")
    ours = own_reading(folder, trial, model.dtype)
    found = compare(theirs, ours)
    if found.largest > 0:
        allowed = rounding_of(
            passes,
            theirs,
            model.dtype,
            enough=lambda explained: found.rms <= explained.rms and worst(found.partings, explained) is None,
        )
        parting = worst(found.partings, allowed)
        if parting is not None:
            raise QuantizationError(_told(folder, trial, parting, allowed, ("transformers", "qtool")))
        if found.rms > allowed.rms:
            raise QuantizationError(
                f"transformers reads it differently: logits differ by {found.rms:.3g} (root mean square; rounding "
                f"explains {allowed.rms:.3g})"
            )
    check_engine(folder, trial, theirs, passes, against="transformers")
    return found.largest


def beside_loaded(folder: Path, trial: Trial, model: Any) -> None:
    """The same for the engine alone, beside `model`, which transformers loaded from the folder."""

    def passes(attention: str) -> Iterable[Tensor]:
        with computed_another_way(model, attention):
            return [one_pass(model, row) for row in trial.rows]

    theirs = checked_finite(list(passes("sdpa")), "transformers")
    check_engine(folder, trial, theirs, passes, against="transformers")


def beside_own_reading(folder: Path, trial: Trial) -> None:
    """The same for the engine alone, beside qtool's own reading of the folder."""

    def passes(attention: str) -> Iterable[Tensor]:
        return own_reading(folder, trial, None, attention=attention)

    check_engine(folder, trial, list(passes("sdpa")), passes, against="qtool read block by block")


def check_engine(folder: Path, trial: Trial, reference: Sequence[Tensor], passes: Passes, *, against: str) -> None:
    """Raises QuantizationError where the engine wrote a token that is behind the best one of `reference` by more than
    rounding explains. Its products round to bfloat16 or 8 bits, whatever the model is stored in."""
    partings = []
    for row, (prompt, written) in enumerate(zip(trial.prompts, trial.written, strict=True)):
        logits = reference[row][: len(prompt) + len(written) - 1]
        if written:
            partings += partings_of(row, logits, torch.tensor(written), first=len(prompt) - 1)
    if not partings:
        return
    allowed = rounding_of(
        passes, reference, torch.bfloat16, enough=lambda explained: worst(partings, explained) is None
    )
    parting = worst(partings, allowed)
    if parting is not None:
        raise QuantizationError(_told(folder, trial, parting, allowed, (against, "the engine")))


def own_reading(folder: Path, trial: Trial, dtype: torch.dtype | None, *, attention: str = "sdpa") -> list[Tensor]:
    """Logits of each row as qtool reads the folder, block by block. Raises QuantizationError where one is NaN."""
    streamed = StreamedModel(folder, dtype=dtype)
    with computed_another_way(streamed.model, attention):
        logits = [found[0] for found in streamed.logits([torch.tensor([row]) for row in trial.rows])]
    return checked_finite(logits, "qtool")


@contextlib.contextmanager
def computed_another_way(model: Any, way: str) -> Iterator[None]:
    """While inside, `model` computes with the attention `way`, or with "nudged" embeddings: one number in eight is
    moved by a rounding of its type, or by 2**-17 of itself where that is more."""
    possible = way if attention_of(model.config) == "sdpa" and way != "nudged" else attention_of(model.config)
    use_attention(model, possible if possible == "sdpa" else "eager")
    if way != "nudged":
        yield
        return
    handles = [part.register_forward_hook(_nudged) for part in model.modules() if isinstance(part, nn.Embedding)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _nudged(module: Any, given: Any, output: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(output.shape, generator=generator).to(output.device) < _NUDGED
    return torch.where(chosen, output * (1 + max(torch.finfo(output.dtype).eps, _NUDGE)), output)


def checked_finite(logits: list[Tensor], reader: str) -> list[Tensor]:
    """`logits`. Raises QuantizationError where one is NaN or infinite."""
    if not all(bool(torch.isfinite(found).all()) for found in logits):
        raise QuantizationError(f"the variant's logits are NaN or infinite, as {reader} reads it")
    return logits


@torch.inference_mode()
def one_pass(model: Any, row: Sequence[int]) -> Tensor:
    """Logits [tokens, vocabulary] of one pass of a loaded model over `row`."""
    return whole_pass(model, torch.tensor([list(row)], device=model.device))[0].float().cpu()


def load_with_transformers(folder: Path) -> Any:
    """The variant as any user of transformers gets it, on the CPU."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    stored = read_config(folder)["quantization_config"]
    groups = stored["config_groups"].values()
    dense = CompressedTensorsConfig(dequantize=True) if any(not g["weights"]["symmetric"] for g in groups) else None
    try:
        with blamed_on(f"{folder}: transformers cannot load it"), quiet_transformers():
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype="auto",
                output_loading_info=True,
                **({} if dense is None else {"quantization_config": dense}),
            )
    except ModelError as error:
        if isinstance(error.__cause__, AttributeError):
            raise NotForTransformers(
                "transformers cannot load this architecture from compressed-tensors: its own code fails with "
                f"{reason(error.__cause__)!r}"
            ) from error
        raise
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading.get(problem):
            raise QuantizationError(
                f"{folder}: transformers reports {problem}: {sorted(map(str, loading[problem]))[0]}"
            )
    return model.eval()


def _told(folder: Path, trial: Trial, parting: Parting, allowed: Rounding, who: tuple[str, str]) -> str:
    """The parting in words: prompt, position, both tokens, the lead, and what rounding explains of it."""
    decode = _decoder(folder)
    row = trial.rows[parting.row]
    shown = decode(row[: parting.place + 1])
    return (
        f"{who[0]} prefers {decode((parting.reference,))} and {who[1]} {decode((parting.other,))} after token "
        f"{parting.place + 1} of prompt {parting.row + 1}, {shown}, by a lead of {parting.lead:.3g} where rounding "
        f"explains {allowed.lead:.3g}"
    )


def _decoder(folder: Path) -> Any:
    if not tokenizer_files(folder):
        return lambda ids: f"ids {' '.join(map(str, ids))}"
    from qtool.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return lambda ids: f"{tokenizer.decode(list(ids))!r}" + (f" ({ids[0]})" if len(ids) == 1 else "")
