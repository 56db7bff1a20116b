"""The model as modules, empty on the meta device: its structure, ready to be given tensors."""

import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from qtool.errors import ModelError
from qtool.models.checkpoint import KEYS_OF_STORAGE, Checkpoint, open_checkpoint, read_config
from qtool.models.conversion import Translation
from qtool.models.foreign import blamed_on

_ROWS = 4096  # of a matrix compared at once


def load_config(folder: Path) -> Any:
    """The transformers config of `folder` without what it says of quantized storage."""
    from transformers import AutoConfig

    left_out = (*KEYS_OF_STORAGE, "auto_map")
    config = {key: _decoded(value) for key, value in read_config(folder).items() if key not in left_out}
    model_type = config.pop("model_type")
    with blamed_on(f"{folder}: transformers cannot use config.json"):
        return AutoConfig.for_model(model_type, **config)


def empty_model(folder: Path) -> nn.Module:
    """The model of `folder` in evaluation mode, its parameters on the meta device, ready to be given tensors.

    Buffers that no checkpoint stores (rotary frequencies) are real and on the CPU, so that a block which is given its
    weights can run. A head that config.json ties to the embedding, and that the files hold as another matrix, is not
    tied: so transformers loads it too.
    """
    config = load_config(folder)
    stored = open_checkpoint(folder) if any(folder.glob("*.safetensors")) else None
    if stored is not None:
        _refuse_too_many_layers(folder, config, len(stored.names))
    subject = f"{folder}: transformers cannot build the model of config.json"
    with blamed_on(subject):
        model = _empty(config)
    if stored is not None and _holds_its_own_head(model, stored):
        untie(config)
        with blamed_on(subject):
            model = _empty(config)
    return model


def vocabulary_of(folder: Path) -> int:
    """Number of token ids that the model in `folder` takes; a multimodal configuration has it in its text part."""
    return int(load_config(folder).get_text_config(decoder=True).vocab_size)


def untie(config: Any) -> None:
    """Makes `config`, a transformers config or the dict of one, say that the output head is a matrix of its own."""
    if isinstance(config, dict):
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            if part is config or "tie_word_embeddings" in part:
                part["tie_word_embeddings"] = False
        return
    for part in {id(part): part for part in (config, config.get_text_config(decoder=True))}.values():
        part.tie_word_embeddings = False


def count_parameters(folder: Path) -> int:
    """Scalars of the unquantized model; tied weights count once."""
    return sum(parameter.numel() for parameter in empty_model(folder).parameters())


def attention_of(config: Any) -> Literal["sdpa", "eager"]:
    """How a model of `config` computes attention: SDPA, or in plain products where SDPA cannot express its attention
    (soft-capped scores of Gemma 2, the biases of Bloom)."""
    from transformers import AutoModelForCausalLM

    models = AutoModelForCausalLM._model_mapping  # configuration class -> model class
    if getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None):
        return "eager"  # torch's fused attention has no cap, and transformers refuses to leave it out
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
    """Fills them transformers' own way, as it initializes what a checkpoint does not store: by the module that holds
    the buffer, or by one around it (Falcon-H1). One that nobody fills stays NaN, never what memory happened to hold."""
    owners: dict[str, Any] = {"": model}
    for place, module in model.named_modules():
        # a model within a model (a text decoder) fills its own modules, as where transformers initializes it
        owner = module if hasattr(module, "_init_weights") else owners[place.rpartition(".")[0]]
        owners[place] = owner
        names = [name for name in module._non_persistent_buffers_set if getattr(module, name) is not None]
        for name in names:
            setattr(module, name, _unfilled(getattr(module, name)))
        around = place
        if names:
            owner._init_weights(module)
        while around and any(bool(getattr(module, name).isnan().any()) for name in names):
            around = around.rpartition(".")[0]
            owners[around]._init_weights(model.get_submodule(around))


def _unfilled(buffer: torch.Tensor) -> torch.Tensor:
    return torch.full(buffer.shape, math.nan if buffer.is_floating_point() else 0, dtype=buffer.dtype)


def _decoded(value: Any) -> Any:
    """`value` with the floats that JSON cannot express, which transformers writes as {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        if set(value) == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
            return float(value["__float__"])
        return {key: _decoded(entry) for key, entry in value.items()}
    return [_decoded(entry) for entry in value] if isinstance(value, list) else value


def _refuse_too_many_layers(folder: Path, config: Any, tensors: int) -> None:
    """A layer has at least one tensor: more layers than tensors would only be built to be found missing."""
    layers = getattr(config.get_text_config(decoder=True), "num_hidden_layers", None)
    if isinstance(layers, int) and layers > tensors:
        raise ModelError(
            f"{folder}: config.json asks for {layers:,} layers (num_hidden_layers), and the files hold "
            f"{tensors:,} tensors in all; one of the two is of another model"
        )


def _holds_its_own_head(model: Any, stored: Checkpoint) -> bool:
    """Whether tensors that the configuration ties are both stored, and differ."""
    tied = {target: source for target, source in (model.all_tied_weights_keys or {}).items() if target != source}
    if not tied:
        return False
    renamed, _ = Translation(model, model.state_dict()).of(stored.names)
    back = {used: name for name, used in renamed.items()}
    for target, source in tied.items():
        layer = target.rpartition(".")[0]
        if f"{layer}.weight_packed" in back or f"{layer}.qweight" in back:
            return True
        if target in back and source in back and not _equal(stored, back[target], back[source]):
            return True
    return False


def _equal(stored: Checkpoint, first: str, second: str) -> bool:
    if stored.shape(first) != stored.shape(second) or stored.dtype(first) != stored.dtype(second):
        return False
    rows = stored.shape(first)[0]
    return all(
        torch.equal(stored.rows(first, start, start + _ROWS), stored.rows(second, start, start + _ROWS))
        for start in range(0, rows, _ROWS)
    )
