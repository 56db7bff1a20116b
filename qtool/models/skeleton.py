"""The model as modules: empty on the meta device for its structure, or loaded whole from disk."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from qtool.errors import ModelError
from qtool.models.checkpoint import open_checkpoint, read_config

CONFIG_KEYS_OF_STORAGE = ("quantization_config", "compression_config")


def load_config(folder: Path) -> Any:
    """The transformers config of `folder` without what it says of quantized storage."""
    from transformers import AutoConfig

    config = {key: value for key, value in read_config(folder).items() if key not in CONFIG_KEYS_OF_STORAGE}
    model_type = config.pop("model_type")
    try:
        return AutoConfig.for_model(model_type, **config)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder}: transformers cannot use config.json: {error}") from error


def empty_model(folder: Path) -> nn.Module:
    """The model of `folder` in evaluation mode, its parameters on the meta device, ready to be given tensors.

    Buffers that no checkpoint stores (rotary frequencies) are real and on the CPU, so that a block which is given its
    weights can run.
    """
    return _empty(load_config(folder))


def count_parameters(folder: Path) -> int:
    """Scalars of the unquantized model; tied weights count once."""
    return sum(parameter.numel() for parameter in empty_model(folder).parameters())


def load_base(
    folder: Path,
    *,
    dtype: torch.dtype | Literal["auto"] = "auto",
    device: torch.device | str = "cpu",
) -> Any:
    """The unquantized model of `folder`, whole, in evaluation mode with the attention of attention_of.

    Raises ModelError when the folder holds a quantized checkpoint, or tensors are missing, unexpected or of another
    shape: a model that loads only in part answers, and answers wrongly.
    """
    from transformers import AutoModelForCausalLM

    checkpoint = open_checkpoint(folder)
    if any(key in checkpoint.config for key in CONFIG_KEYS_OF_STORAGE):
        raise ModelError(f"{folder}: is a quantized checkpoint; give the base model it was made from")
    config = load_config(folder)
    try:
        with quiet_transformers():
            model, loading = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=checkpoint.main_dtype() if dtype == "auto" else dtype,
                attn_implementation=attention_of(config),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that they are listed, and refused below
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: transformers cannot load it: {_first_line(error)}") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(name if isinstance(name, str) else str(name[0]) for name in loading.get(problem, ()))
        if found:
            raise ModelError(f"{folder}: {len(found)} {problem.replace('_', ' ')} in the checkpoint, first {found[0]}")
    return model.eval().to(device)


def attention_of(config: Any) -> Literal["sdpa", "eager"]:
    """How a model of `config` computes attention: SDPA, or in plain products where SDPA cannot express its attention
    (soft-capped scores of Gemma 2, the biases of Bloom)."""
    from transformers import AutoModelForCausalLM

    models = AutoModelForCausalLM._model_mapping  # configuration class -> model class
    return "sdpa" if type(config) not in models or models[type(config)]._supports_sdpa else "eager"


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silences loading bars and reports: what they say is checked here and told in one line."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # bars that other libraries draw without asking
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _empty(config: Any) -> nn.Module:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention_of(config))
    _make_unstored_buffers_real(model)
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


@torch.no_grad()
def _make_unstored_buffers_real(model: Any) -> None:
    for module in model.modules():
        names = [name for name in module._non_persistent_buffers_set if getattr(module, name) is not None]
        for name in names:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        if names:
            model._init_weights(module)  # transformers' own way to fill what a checkpoint does not store


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
