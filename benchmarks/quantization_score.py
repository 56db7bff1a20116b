"""How far a checkpoint's answers are from the base's, on tokens that no quantization method has seen."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from quantization_inputs import Scored
from torch import Tensor

from qtool.quantize.blocks.streaming import StreamedModel


class Quality:
    """The base's answers on the evaluation tokens, to compare with."""

    def __init__(self, model: Path, scored: Scored) -> None:
        self._batches = scored
        self._base = self._log_probabilities(model)
        self.tokens = tuple(int(count) for _, counts in scored for count in counts.sum(1))

    def of(self, folder: Path) -> dict[str, Any]:
        """Of the checkpoint in `folder`: KL summed over each sequence (nats), share of equal most likely tokens,
        perplexity."""
        divergences: list[Tensor] = []
        agreed = surprise = 0.0
        for (ids, counts), base, found in zip(self._batches, self._base, self._log_probabilities(folder), strict=True):
            every = torch.zeros(counts.shape, dtype=torch.float64)
            every[counts] = (base.exp() * (base - found)).sum(-1)
            divergences += every.sum(1)
            agreed += float((base.argmax(-1) == found.argmax(-1)).sum())
            surprise -= float(found.gather(-1, ids.roll(-1, dims=1)[counts][:, None]).sum())
        tokens = sum(self.tokens)
        return {
            "divergences": tuple(float(f"{float(value):.6g}") for value in divergences),
            "top1": agreed / tokens,
            "perplexity": math.exp(surprise / tokens),
        }

    @torch.inference_mode()
    def _log_probabilities(self, folder: Path) -> list[Tensor]:
        stored = json.loads((folder / "config.json").read_text()).get("quantization_config", {})
        if stored.get("quant_method") == "bitsandbytes":  # only transformers reads it whole
            from transformers import AutoModelForCausalLM

            model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
            logits: list[Tensor] = [model(ids, use_cache=False).logits.float() for ids, _ in self._batches]
        else:
            logits = StreamedModel(folder).logits([ids for ids, _ in self._batches])
        pairs = zip(logits, self._batches, strict=True)
        return [found[counts].double().log_softmax(-1) for found, (_, counts) in pairs]
