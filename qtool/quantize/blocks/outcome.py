"""What a variant in the making does to held-out text: its distance from the base after the last block."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qtool.quantize.blocks.hidden_states import Samples
from qtool.quantize.blocks.streaming import StreamedModel
from qtool.records.variant import HeldOutChange

_MOST_TOKENS = 1024
_MOST_LOGITS = 1 << 24


@torch.inference_mode()
def held_out_change(streamed: StreamedModel, samples: Samples) -> HeldOutChange | None:
    """KL divergence of the variant from the base on the held-out tokens, both as they left the last block; None where
    nothing was held out. The weights outside the blocks must be in memory."""
    border = samples.held_out_from
    real = samples.real[border:]
    tokens = sum(int(mask.sum()) for mask in real)
    if not tokens:
        return None
    stride = -(-tokens // _MOST_TOKENS)
    after, before = (
        torch.cat([state[mask] for state, mask in zip(states, real, strict=True)])[::stride]
        for states in (samples.hidden[border:], samples.base_held_out)
    )
    divergences: list[float] = []
    agreements = 0
    for base, variant in _logits(streamed, before, after):
        wanted, found = base.log_softmax(-1), variant.log_softmax(-1)
        divergences += (wanted.exp() * (wanted - found)).sum(-1).double().tolist()
        agreements += int((wanted.argmax(-1) == found.argmax(-1)).sum())
    count = len(divergences)
    mean = math.fsum(divergences) / count
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in divergences) / max(count - 1, 1) / count)
    return HeldOutChange(count, max(mean, 0.0), spread, agreements / count)


def _logits(streamed: StreamedModel, before: Tensor, after: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    config: Any = streamed.model.config.get_text_config(decoder=True)
    rows = max(_MOST_LOGITS // int(config.vocab_size), 1)
    for start in range(0, len(before), rows):
        # a row for each token: they come from many sequences, together longer than the model has positions
        base, variant = (streamed.head(states[start : start + rows, None])[:, 0] for states in (before, after))
        yield base.float(), variant.float()
