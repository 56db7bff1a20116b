"""transformers' own translation of checkpoint names, used one name at a time: what it calls each stored tensor, and
from which stored tensors it computes one that no checkpoint holds in that form."""

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qtool.errors import ModelError
from qtool.models.foreign import FOREIGN, reason

_QUANTIZED_LEAVES = frozenset(
    {"weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "input_scale", "input_zero_point"}
    | {"qweight", "qzeros", "scales", "g_idx"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """Tensors that transformers makes of others: `target` is the name it files them under; `sources` pairs each stored
    name, in the order of the files, with the pattern that it matched. `quantized` names the part of a quantized weight
    (its codes, its scales) that the sources are, and is empty for plain numbers."""

    target: str
    sources: tuple[tuple[str, str], ...]
    converter: Any
    quantized: str = ""

    @property
    def merges_experts(self) -> bool:
        """Whether it only stacks one matrix of each expert, and joins gate and up: both are read without it here."""
        kinds = [type(operation).__name__ for operation in self.converter.operations]
        return kinds in (["MergeModulelist"], ["MergeModulelist", "Concatenate"])

    def compute(self, tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
        """The tensors by transformers' names. Raises ModelError where the stored ones do not fit."""
        converter = deepcopy(self.converter)
        for stored, pattern in self.sources:
            converter.add_tensor(self.target, stored, pattern, tensors[stored])
        try:
            made = converter.convert(self.target, model=model, config=model.config)
        except FOREIGN as error:
            raise ModelError(f"{self.sources[0][0]}: transformers cannot convert it: {reason(error)}") from error
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


class Translation:
    """The names of a checkpoint as transformers reads them into `model`, whose own tensors are called `names`."""

    def __init__(self, model: Any, names: Iterable[str]) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        transforms = get_model_conversion_mapping(model)
        self._renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
        self._converters = [each for each in transforms if isinstance(each, WeightConverter)]
        self._by_pattern = {pattern: each for each in self._converters for pattern in each.source_patterns}
        self._prefix = model.base_model_prefix
        self._names = dict.fromkeys(names, True)
        self.ignored = _ignored(model)

    def of(self, stored: Iterable[str]) -> tuple[dict[str, str], tuple[Conversion, ...]]:
        """The model's name of each stored tensor that is only renamed, and the conversions of the others."""
        from transformers.core_model_loading import dot_natural_key

        renamed: dict[str, str] = {}
        groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for name in sorted(stored, key=dot_natural_key):
            used, pattern = self._renamed(name)
            if pattern is None:
                renamed[name] = used
            else:  # codes and scales of an expert go the way of its weight, each for itself
                leaf = name.rpartition(".")[2]
                groups.setdefault((used, leaf if leaf in _QUANTIZED_LEAVES else ""), []).append((name, pattern))
        conversions = tuple(
            Conversion(target, tuple(sources), self._by_pattern[sources[0][1]], leaf)
            for (target, leaf), sources in groups.items()
        )
        return renamed, conversions

    def joins(self, name: str) -> bool:
        """Whether a stored tensor of that name would become a part of one that holds all experts."""
        used, pattern = self._renamed(name)
        place = name.rsplit(".", 3)[0]
        return pattern is not None and used == f"{place}.gate_up_proj"

    def _renamed(self, name: str) -> tuple[str, str | None]:
        """The name after transformers' renamings, and the pattern of the converter that takes it from there."""
        from transformers.core_model_loading import rename_source_key

        layer, _, leaf = name.rpartition(".")
        if leaf in _QUANTIZED_LEAVES:  # patterns are written for plain weights
            used, pattern = self._renamed(f"{layer}.weight")
            if pattern is not None:
                return used, pattern
            return (used.removesuffix("weight") + leaf if used.endswith(".weight") else name), None
        used, pattern = rename_source_key(name, self._renamings, self._converters, self._prefix, self._names)
        if used not in self._names and name in self._names:  # it has the model's own name already
            return name, None
        if used not in self._names and pattern is None:
            plain, _ = rename_source_key(name, [], [], self._prefix, self._names)
            used = plain if plain in self._names else used
        return used, pattern if used in self._names else None


def _ignored(model: Any) -> re.Pattern[str] | None:
    """Names of stored tensors that transformers leaves unread on purpose, such as heads that predict several tokens."""
    patterns = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    patterns |= {r"rotary_emb\.inv_freq", r"(^|\.)position_ids$", r"(^|\.)masked_bias$", r"(^|\.)attn\.bias$"}
    return re.compile("|".join(f"({pattern})" for pattern in sorted(patterns)))
