"""Joins, aborts and orders on models with windows, capped scores and experts; what a storm may not leave behind."""

import gc
import json
import random
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest

from qtool.engine.backends.openai import OpenAIEngine
from qtool.engine.contract import GenerationRequest, Sampling
from qtool.engine.drive import generate
from qtool.engine.load import open_engine
from tests.engine.small_models import VOCABULARY, make_engine, make_model
from tests.tiny_model import make_tiny_llama

ARCHITECTURES = ("mistral", "gemma2", "gemma3_text", "mixtral", "gpt2")


def made_up(dice: random.Random, count: int) -> list[GenerationRequest]:
    """Prompts of 1 to 40 tokens, some alike for 20 tokens, greedy and drawn."""
    shared = tuple(dice.choices(range(3, VOCABULARY), k=20))
    found = []
    for _ in range(count):
        tail = tuple(dice.choices(range(3, VOCABULARY), k=dice.randint(1, 20)))
        sampling = Sampling(temperature=dice.choice([0.0, 0.9]), seed=dice.randint(0, 9))
        found.append(GenerationRequest(shared + tail if dice.random() < 0.4 else tail, dice.randint(1, 10), sampling))
    return found


def storm(engine: Any, requests: list[GenerationRequest], dice: random.Random) -> dict[int, tuple[str, list[int]]]:
    """Requests join at random steps and some are aborted: for each index how it ended and its tokens."""
    pending, index_of = list(enumerate(requests)), {}
    tokens: dict[int, list[int]] = {index: [] for index in range(len(requests))}
    ended: dict[int, str] = {}
    while pending or len(ended) < len(index_of):
        if pending and dice.random() < 0.6:
            index, request = pending.pop()
            index_of[engine.submit(request)] = index
        if index_of and dice.random() < 0.15:
            engine.abort(dice.choice(sorted(index_of)))
        for event in engine.step():
            if event.token is not None:
                tokens[index_of[event.request]].append(event.token)
            if event.finish is not None:
                ended[index_of[event.request]] = event.finish
    return {index: (ended[index], tokens[index]) for index in ended}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_request_gets_what_it_gets_alone(architecture: str) -> None:
    dice = random.Random(5)
    requests = made_up(dice, 16)
    single = make_engine(make_model(architecture), slots=1)
    alone = [list(generation.ids) for request in requests for generation in generate(single, [request])]
    engine = make_engine(make_model(architecture), slots=3)
    found = storm(engine, requests, dice)
    for index, (ended, tokens) in found.items():
        assert tokens == (alone[index][: len(tokens)] if ended == "abort" else alone[index])
    assert {ended for ended, _ in found.values()} >= {"length", "abort"}
    status = engine.status()
    assert (status.running, status.waiting, status.slots_free) == (0, 0, status.slots)
    for order in (requests[::-1], sorted(requests, key=lambda request: len(request.ids))):
        together = {request: list(one.ids) for request, one in zip(order, generate(engine, order), strict=True)}
        assert [together[request] for request in requests] == alone


@pytest.mark.parametrize("backend", ["qtool", "transformers"])
def test_a_closed_engine_gives_its_weights_back(backend: str, tmp_path: Path) -> None:
    engine: Any = open_engine(make_tiny_llama(tmp_path / "base"), backend=backend, slots=2)
    model = weakref.ref(engine._network.model if backend == "qtool" else engine._model)
    storm(engine, made_up(random.Random(1), 6), random.Random(2))
    engine.close()
    gc.collect()
    assert model() is None


def stream(request: httpx.Request) -> httpx.Response:
    """Lists one model; answers a prompt with as many tokens as were asked for."""
    if request.method == "GET":
        return httpx.Response(200, json={"data": [{"id": "tiny", "max_model_len": 64}]})
    body = json.loads(request.content)
    finishes = [None] * (body["max_tokens"] - 1) + ["length"]
    choices = [{"text": "x", "token_ids": [7], "finish_reason": finish} for finish in finishes]
    return httpx.Response(200, text="".join(f"data: {json.dumps({'choices': [one]})}\n\n" for one in choices))


def test_the_threads_of_a_served_storm_end_with_it() -> None:
    before = threading.active_count()
    engine = OpenAIEngine("http://server", slots=3, transport=httpx.MockTransport(stream))
    requests = [GenerationRequest((5,) * length, 3) for length in range(1, 30)]
    found = storm(engine, requests, random.Random(3))
    assert len(found) == len(requests)
    engine.close()
    deadline = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert engine.status().running == 0
