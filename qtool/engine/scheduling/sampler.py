"""From logits to tokens: greedy rows in one call, each sampled row with its own seed and filters."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qtool.engine.contract import Sampling
from qtool.engine.grammar import Matcher

_FEW_TOKENS = 1024


@dataclass(slots=True, eq=False)
class Chooser:
    """How one request chooses: its sampling settings and its own random stream, one draw a token."""

    sampling: Sampling
    alternatives: int | None
    matcher: Matcher | None = None
    stream: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.stream = random.Random(self.sampling.seed)

    @property
    def penalized(self) -> bool:
        """Whether earlier tokens change the logits."""
        sampling = self.sampling
        return (
            sampling.repetition_penalty != 1.0 or sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token, its log-probability under the model's own distribution, and the likeliest alternatives.

    `token` is -1 where the logits hold NaN or only infinities.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def choose(
    logits: Tensor, choosers: Sequence[Chooser], prompts: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> list[Choice]:
    """One token for each row of `logits` [rows, vocabulary]; a row depends on nothing in the other rows."""
    logits = logits.float()
    normalizers = torch.logsumexp(logits, dim=-1)
    tokens = torch.argmax(logits, dim=-1)
    chosen = tokens.tolist()
    for row, chooser in enumerate(choosers):
        if chooser.penalized or chooser.sampling.temperature > 0.0 or chooser.matcher is not None:
            chosen[row] = _choose_row(logits[row], chooser, prompts[row], outputs[row])
    tokens = torch.tensor(chosen, device=logits.device)
    logprobs = (logits.gather(1, tokens[:, None])[:, 0] - normalizers).tolist()
    choices = []
    for row, chooser in enumerate(choosers):
        if logprobs[row] != logprobs[row]:
            choices.append(Choice(-1, 0.0))
            continue
        top = _alternatives(logits[row], normalizers[row], chooser.alternatives) if chooser.alternatives else ()
        choices.append(Choice(chosen[row], logprobs[row], top))
    return choices


def _choose_row(logits: Tensor, chooser: Chooser, prompt: Sequence[int], output: Sequence[int]) -> int:
    sampling = chooser.sampling
    if chooser.penalized:
        logits = _penalize(logits, sampling, prompt, output)
    if chooser.matcher is not None:
        logits = chooser.matcher.masked(logits)
    if sampling.temperature == 0.0:
        return int(torch.argmax(logits))
    draw = chooser.stream.random()
    probabilities, tokens = _candidates(torch.softmax(logits.double() / sampling.temperature, dim=-1), sampling)
    mass = probabilities.cumsum(0)
    position = int(torch.searchsorted(mass, draw * mass[-1], right=True))
    position = min(position, int(torch.nonzero(probabilities)[-1]))  # a draw that rounds up to all of the mass
    return position if tokens is None else int(tokens[position])


def _candidates(probabilities: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor | None]:
    """Probabilities of the tokens that may be drawn, the others 0, and which tokens they are (None: all, in order).

    The vocabulary is sorted only as far as the filters need.
    """
    tokens: Tensor | None = None
    floor = sampling.min_p * probabilities.max()
    if sampling.top_k and sampling.top_k < len(probabilities):
        probabilities, tokens = torch.topk(probabilities, sampling.top_k)
    if sampling.top_p < 1.0:
        if tokens is None:
            probabilities, tokens = _most_likely(probabilities, sampling.top_p)
        before = probabilities.cumsum(0) - probabilities
        probabilities = probabilities * (before < sampling.top_p)  # the token that crosses top_p stays
    return probabilities * (probabilities >= floor), tokens


def _most_likely(probabilities: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """The likeliest tokens in order, at least so many that they hold `mass`."""
    few = min(_FEW_TOKENS, len(probabilities))
    found, tokens = torch.topk(probabilities, few)
    if float(found.sum()) >= mass or few == len(probabilities):
        return found, tokens
    return torch.sort(probabilities, descending=True, stable=True)


def _penalize(logits: Tensor, sampling: Sampling, prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """Repetition counts prompt and output, presence and frequency count the output only, as vLLM defines them."""
    logits = logits.clone()
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *output}), device=logits.device)
        old = logits[seen]
        logits[seen] = torch.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
    if output and (sampling.presence_penalty or sampling.frequency_penalty):
        tokens, counts = torch.unique(torch.tensor(output, device=logits.device), return_counts=True)
        logits[tokens] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    return logits


def _alternatives(logits: Tensor, normalizer: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    values, tokens = torch.topk(logits - normalizer, count)
    return tuple(zip(tokens.tolist(), values.tolist(), strict=True))
