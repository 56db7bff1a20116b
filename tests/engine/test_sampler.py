"""Drawing tokens: frequencies follow the filtered distribution, and each filter keeps exactly what it says."""

import pytest
import torch

from qtool.engine.contract import Sampling
from qtool.engine.scheduling.sampler import Chooser, _candidates, choose

LOGITS = torch.log(torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15]))


def kept(sampling: Sampling) -> set[int]:
    probabilities, tokens = _candidates(torch.softmax(LOGITS.double(), -1), sampling)
    positions = torch.nonzero(probabilities)[:, 0]
    return set((positions if tokens is None else tokens[positions]).tolist())


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(1.0), {0, 1, 2, 3, 4}),
        (Sampling(1.0, top_k=2), {1, 3}),
        (Sampling(1.0, top_k=99), {0, 1, 2, 3, 4}),
        (Sampling(1.0, top_p=0.39), {1}),
        (Sampling(1.0, top_p=0.41), {1, 3}),
        (Sampling(1.0, top_p=0.84), {1, 3, 4}),
        (Sampling(1.0, min_p=0.3), {1, 3, 4}),
        (Sampling(1.0, top_k=3, top_p=0.5, min_p=0.9), {1}),
    ],
)
def test_each_filter_keeps_what_it_says(sampling: Sampling, expected: set[int]) -> None:
    assert kept(sampling) == expected


def test_frequencies_follow_the_distribution() -> None:
    draws = 4000
    chooser = Chooser(Sampling(temperature=1.0, seed=7), None)
    counts = torch.zeros(5)
    for _ in range(draws):
        counts[choose(LOGITS[None], [chooser], [()], [()])[0].token] += 1
    expected = torch.softmax(LOGITS, -1) * draws
    assert float(((counts - expected) ** 2 / expected).sum()) < 18.5  # chi-square, 4 degrees: p = 0.001


def test_penalties_are_vllms() -> None:
    logits = torch.tensor([[2.0, 1.9, -1.0, 0.0]])
    repeated = choose(logits, [Chooser(Sampling(repetition_penalty=2.0), None)], [(0,)], [()])[0]
    assert repeated.token == 1  # 2.0 / 2.0 < 1.9; the prompt counts
    frequent = choose(logits, [Chooser(Sampling(frequency_penalty=0.06), None)], [(0,)], [(0, 0)])[0]
    assert frequent.token == 1  # 2.0 - 2 * 0.06 < 1.9; only the output counts
    present = choose(logits, [Chooser(Sampling(presence_penalty=0.06), None)], [(0, 0)], [(0, 0)])[0]
    assert present.token == 0  # once, however often


def test_nan_is_no_token() -> None:
    chooser = Chooser(Sampling(), None)
    rows = torch.stack([LOGITS, torch.full_like(LOGITS, float("nan")), torch.full_like(LOGITS, float("-inf"))])
    found = choose(rows, [chooser] * 3, [()] * 3, [()] * 3)
    assert [choice.token for choice in found] == [1, -1, -1]
    hot = Chooser(Sampling(temperature=1.0), None)
    assert choose(rows[1:2], [hot], [()], [()])[0].token == -1
