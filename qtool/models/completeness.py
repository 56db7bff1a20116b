"""Whether a checkpoint holds the tensors of its model: all of them, in their shapes, and no others; and the base model
loaded whole, which has to."""

import re
from pathlib import Path
from typing import Any, Literal

import torch

from qtool.errors import ModelError
from qtool.formats.tensor_names import StoredNames, open_as_used
from qtool.models.checkpoint import Checkpoint, is_quantized, open_checkpoint
from qtool.models.foreign import blamed_on
from qtool.models.skeleton import attention_of, empty_model, quiet_transformers
from qtool.models.unfolded import unfold

_PREFIXES = ("_orig_mod.", "module.", "base_model.model.")  # torch.compile, DataParallel, peft
_TIMES_TOO_MANY = 4


def refuse_incomplete(checkpoint: Checkpoint, model: Any, names: StoredNames, *, quantized: frozenset[str]) -> None:
    """Raises ModelError where the tensors of `checkpoint`, by the names of `model`, are not those that the model needs.

    Tensors that share their memory need one of their names. Layers in `quantized` are not looked at: their codes and
    scales are checked where they are read.
    """
    folder = checkpoint.folder
    state = {name: tuple(tensor.shape) for name, tensor in model.state_dict(keep_vars=True).items()}
    stored = set(checkpoint.names)
    if len(stored) > _TIMES_TOO_MANY * len(state) + 1000:
        raise ModelError(f"{folder}: holds {len(stored):,} tensors where the model of config.json has {len(state):,}")
    inside = tuple(f"{layer}." for layer in quantized)
    missing = [name for name in _missing(model, stored) if not name.startswith(inside)]
    extra = sorted(name for name in stored - set(state) if not name.startswith(inside))
    if missing and (prefix := _prefix_of(extra, missing)):
        count = sum(name.startswith(prefix) for name in extra)
        raise ModelError(f"{folder}: {count} tensors have the prefix {prefix!r}; save them again without it")
    if missing or extra:
        raise ModelError(f"{folder}: {_difference(missing, extra)}; files and config.json are not of one model")
    for name in sorted(stored):
        if name in state and checkpoint.shape(name) != state[name]:
            raise ModelError(
                f"{folder}: {names.stored(name)!r} is {checkpoint.shape(name)}, and config.json asks for "
                f"{state[name]}; one of the two is of another model"
            )


def refuse_incomplete_folder(folder: Path) -> None:
    """The same for the base model in `folder`."""
    model = unfold(empty_model(folder))
    checkpoint, names = open_as_used(folder, model)
    refuse_incomplete(checkpoint, model, names, quantized=frozenset())


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
    if is_quantized(checkpoint.config):
        raise ModelError(f"{folder}: is a quantized checkpoint; give the base model it was made from")
    refuse_incomplete_folder(folder)
    config: Any = empty_model(folder).config
    with blamed_on(f"{folder}: transformers cannot load it"), quiet_transformers():
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
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        found = sorted(name if isinstance(name, str) else str(name[0]) for name in loading.get(problem, ()))
        if found:
            raise ModelError(f"{folder}: {len(found)} {problem.replace('_', ' ')} in the checkpoint, first {found[0]}")
    return model.eval().to(device)


def shared_names(model: Any) -> dict[str, frozenset[str]]:
    """For each parameter that has several names (a head tied to the embedding), all of them."""
    found: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), set()).add(name)
    return {name: frozenset(names) for names in found.values() if len(names) > 1 for name in names}


def _missing(model: Any, stored: set[str]) -> list[str]:
    shared = shared_names(model)
    patterns = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    ignored = re.compile("|".join(f"({pattern})" for pattern in sorted(patterns))) if patterns else None
    return sorted(
        name
        for name in model.state_dict()
        if name not in stored and not shared.get(name, frozenset()) & stored and not (ignored and ignored.search(name))
    )


def _prefix_of(extra: list[str], missing: list[str]) -> str | None:
    wanted = set(missing)
    for prefix in _PREFIXES:
        if any(prefix in name and name.replace(prefix, "") in wanted for name in extra):
            return prefix
    return None


def _difference(missing: list[str], extra: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{_counted(missing, 'the model needs', 'not in the files')}, first {missing[0]!r}")
    if extra:
        parts.append(f"{_counted(extra, 'the files hold', 'unknown to the model')}, first {extra[0]!r}")
    return "; ".join(parts)


def _counted(names: list[str], whose: str, fault: str) -> str:
    return (
        f"1 tensor that {whose} is {fault}" if len(names) == 1 else f"{len(names):,} tensors that {whose} are {fault}"
    )
