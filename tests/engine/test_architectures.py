"""Every supported architecture gives what transformers' own forward gives, alone and among others."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from qtool.engine.contract import GenerationRequest, ScoreRequest
from qtool.engine.drive import generate
from qtool.engine.layers.attention import UnsupportedAttention
from qtool.engine.layers.own_forward import feed, whole_pass
from qtool.engine.load import open_engine
from tests.engine.small_models import CONFIGS, VOCABULARY, WHOLE, make_engine, make_model


def greedy(model: Any, request: GenerationRequest) -> tuple[int, ...]:
    """The plain loop: the whole sequence through the model's own forward for each token."""
    ids = list(request.ids)
    with torch.inference_mode():
        for _ in range(request.max_new_tokens):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(request.ids) :])


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_tokens_and_scores_equal_the_models_own(architecture: str) -> None:
    model = make_model(architecture)
    oracle = copy.deepcopy(model)
    engine = make_engine(model)
    stream = torch.Generator().manual_seed(3)
    requests = [
        GenerationRequest(tuple(torch.randint(3, VOCABULARY, (length,), generator=stream).tolist()), 6)
        for length in (1, 2, 9, 17, 30, 4)
    ]
    generations = generate(engine, requests)
    for request, generation in zip(requests, generations, strict=True):
        assert generation.finish == "length", generation.error
        assert generation.ids == greedy(oracle, request)
    scored = engine.score([ScoreRequest(r.ids, g.ids) for r, g in zip(requests, generations, strict=True)])
    for request, generation, one in zip(requests, generations, scored, strict=True):
        with torch.inference_mode():
            logits = oracle(torch.tensor([[*request.ids, *generation.ids]]), use_cache=False).logits[0]
        expected = torch.log_softmax(logits[len(request.ids) - 1 : -1].double(), -1)
        wanted = [float(row[token]) for row, token in zip(expected, generation.ids, strict=True)]
        assert all(one.greedy)
        assert all(margin >= 0 for margin in one.margins)
        assert one.logprobs == pytest.approx(wanted, abs=1e-4)
        assert generation.logprobs == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_bfloat16_differs_only_where_the_model_does_from_itself(architecture: str) -> None:
    """Where tokens part, the lead of the model's own choice there is rounding: a few steps of bfloat16, or no more than
    the lead that the model's own other attention, or tokens fed one by one, take from it on the same tokens."""
    model = make_model(architecture, dtype=torch.bfloat16)
    oracle = copy.deepcopy(model)
    requests = [GenerationRequest(tuple(range(3, 3 + length)), 8) for length in (3, 8, 21)]
    for request, generation in zip(requests, generate(make_engine(model), requests), strict=True):
        assert generation.finish == "length", generation.error
        ids = torch.tensor([[*request.ids, *generation.ids]])
        with torch.inference_mode():
            logits = whole_pass(oracle, ids)[0].float()
            alone = one_by_one(oracle, ids)
        chosen = torch.tensor(generation.ids)[:, None]
        places = slice(len(request.ids) - 1, -1)
        lead = logits[places].amax(-1) - logits[places].gather(1, chosen)[:, 0]
        apart = (alone - logits)[places].abs().amax(-1)
        assert bool((lead <= 2**-6 * logits.abs().max() + 2 * apart.max()).all())


def one_by_one(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Logits of each token fed alone behind the model's own cache."""
    cache, rows = None, []
    for place in range(ids.shape[1]):
        logits, cache = feed(model, ids[:, place : place + 1], cache)
        rows.append(logits[0])
    return torch.cat(rows).float()


@pytest.mark.parametrize("architecture", sorted(WHOLE))
def test_an_attention_it_cannot_run_is_told(architecture: str) -> None:
    with pytest.raises(UnsupportedAttention):
        make_engine(make_model(architecture))


@pytest.mark.parametrize("architecture", [*sorted(WHOLE), "llama", "gpt2", "gemma2", "mixtral", "opt"])
def test_a_folder_answers_as_the_model_that_was_saved(architecture: str, tmp_path: Path) -> None:
    """From disk, by whichever backend can run it: joined layers, tied heads, experts stored one by one."""
    model = make_model(architecture)
    model.save_pretrained(tmp_path)
    engine: Any = open_engine(tmp_path, dtype="float32", slots=2)
    assert any("run by transformers" in note for note in engine.notes) == (architecture in WHOLE)
    requests = [GenerationRequest(tuple(range(5, 5 + length)), 5) for length in (2, 11)]
    for request, generation in zip(requests, generate(engine, requests), strict=True):
        assert generation.ids == greedy(model, request), generation.error
    prompt, continuation = requests[1].ids[:4], requests[1].ids[4:]
    with torch.inference_mode():
        logits = model(torch.tensor([requests[1].ids]), use_cache=False).logits[0, 3:-1]
    expected = torch.log_softmax(logits.double(), -1)
    wanted = [float(row[token]) for row, token in zip(expected, continuation, strict=True)]
    assert engine.score([ScoreRequest(prompt, continuation)])[0].logprobs == pytest.approx(wanted, abs=1e-4)
