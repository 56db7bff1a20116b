"""Whatever joins, leaves or fails beside it, a request gets the tokens it gets alone; nothing is left behind."""

import random
import threading
from functools import cache
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies

from qtool.engine.contract import Generation, GenerationRequest, Sampling
from qtool.engine.drive import generate
from qtool.kernels.cpu import native_cpu
from tests.engine.small_models import VOCABULARY, make_engine, make_model

ids = strategies.integers(3, VOCABULARY - 1)
samplings = strategies.one_of(
    strategies.just(Sampling()),
    strategies.builds(
        Sampling,
        temperature=strategies.sampled_from([0.0, 0.7, 1.5]),
        top_k=strategies.sampled_from([0, 3]),
        top_p=strategies.sampled_from([1.0, 0.8]),
        min_p=strategies.sampled_from([0.0, 0.1]),
        repetition_penalty=strategies.sampled_from([1.0, 1.3]),
        frequency_penalty=strategies.sampled_from([0.0, 0.5]),
        seed=strategies.integers(0, 3),
    ),
)
prefix = tuple(range(5, 75))  # longer than a piece
requests = strategies.builds(
    GenerationRequest,
    ids=strategies.one_of(
        strategies.lists(ids, min_size=1, max_size=40).map(tuple),
        strategies.lists(ids, min_size=1, max_size=6).map(lambda tail: (*prefix, *tail)),
    ),
    max_new_tokens=strategies.integers(1, 8),
    sampling=samplings,
    stop_ids=strategies.lists(ids, max_size=6).map(tuple),
)
settings = hypothesis.settings(max_examples=15, deadline=None, database=None, derandomize=True)


@cache
def engine() -> Any:
    return make_engine(make_model(), slots=3)


@cache
def alone(request: GenerationRequest) -> Generation:
    return generate(make_engine(make_model(), slots=1), [request])[0]


def idle(checked: Any) -> bool:
    status = checked.status()
    return status.running == 0 and status.waiting == 0 and status.slots_free == status.slots


@settings
@hypothesis.given(batch=strategies.lists(requests, min_size=1, max_size=8))
def test_together_is_alone(batch: list[GenerationRequest]) -> None:
    for request, generation in zip(batch, generate(engine(), batch), strict=True):
        assert (generation.ids, generation.finish) == (alone(request).ids, alone(request).finish)
    assert idle(engine())


@settings
@hypothesis.given(batch=strategies.lists(requests, min_size=2, max_size=8), seed=strategies.integers(0, 1000))
def test_joins_and_aborts_at_any_step_change_nobody_else(batch: list[GenerationRequest], seed: int) -> None:
    dice = random.Random(seed)
    checked = engine()
    pending, numbers, outputs, aborted = list(batch), {}, {}, set()
    finished: dict[int, str] = {}
    while pending or len(finished) < len(numbers):
        if pending and dice.random() < 0.6:
            request = pending.pop()
            numbers[checked.submit(request)] = request
        if numbers and dice.random() < 0.2:
            victim = dice.choice(sorted(numbers))
            checked.abort(victim)
            aborted.add(victim)
        for event in checked.step():
            assert event.request not in finished
            if event.token is not None:
                outputs.setdefault(event.request, []).append(event.token)
            if event.finish is not None:
                finished[event.request] = event.finish
    for number, request in numbers.items():
        expected = alone(request).ids
        got = tuple(outputs.get(number, ()))
        if finished[number] == "abort":
            assert number in aborted
            assert got == expected[: len(got)]
        else:
            assert got == expected
    assert idle(checked)


def test_a_prompt_longer_than_a_chunk_does_not_stop_the_others() -> None:
    checked = make_engine(make_model(), slots=3)
    checked._scheduler._chunk_tokens = checked._scheduler._piece_tokens = checked._scheduler.feeder._piece_tokens = 8
    short = GenerationRequest((5, 6), 12)
    long = GenerationRequest(tuple(3 + index % 60 for index in range(90)), 4)
    first = checked.submit(short)
    checked.step()
    second = checked.submit(long)
    order = [event.request for _ in range(30) for event in checked.step() if event.token is not None]
    assert order.index(second) > 8  # the short one kept its token a step while the long prompt was fed
    assert order.count(first) == 11
    assert generate(checked, [long])[0].ids == alone(long).ids


def test_a_shared_prefix_is_computed_once() -> None:
    checked = make_engine(make_model(), slots=4)
    fed: list[int] = []
    logits = checked._scheduler.feeder.logits

    def counting(rows: Any, tokens: Any, keep: Any) -> Any:
        fed.append(len(tokens))
        return logits(rows, tokens, keep)

    checked._scheduler.feeder.logits = counting
    batch = [GenerationRequest((*prefix, 50 + index), 1) for index in range(4)]
    together = generate(checked, batch)
    assert sum(fed) == len(prefix) + 4 + 3 * (len(prefix) % 64)  # whole pieces of 64 tokens are shared
    assert [generation.ids for generation in together] == [alone(request).ids for request in batch]


@pytest.mark.skipif(bool(native_cpu.refusal()), reason=f"decoding steps are not compiled: {native_cpu.refusal()}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_tokens_depend_on_nothing_but_their_request(dtype: torch.dtype, temperature: float) -> None:
    """Alone, in company, in another order, behind a shared prefix: the same bits, not only the same tokens."""
    stream = random.Random(5)
    asked = [
        GenerationRequest(
            (prefix if index % 3 == 0 else ()) + tuple(stream.choices(range(3, VOCABULARY), k=1 + 7 * index % 30)),
            12,
            Sampling(temperature=temperature, seed=index),
        )
        for index in range(12)
    ]
    single = make_engine(make_model(dtype=dtype), slots=1)
    expected = [generate(single, [request])[0] for request in asked]
    for order in (range(12), range(11, -1, -1)):
        found = generate(make_engine(make_model(dtype=dtype), slots=5), [asked[index] for index in order])
        for index, generation in zip(order, found, strict=True):
            assert generation.ids == expected[index].ids
            assert generation.logprobs == expected[index].logprobs


def test_a_model_that_turns_to_nan_ends_its_request_only() -> None:
    model = make_model()
    good = GenerationRequest((5, 6, 8), 4)
    bad = GenerationRequest((5, 7, 8), 4)
    expected = generate(make_engine(make_model()), [good])[0].ids
    model.get_input_embeddings().weight.data[7] = float("nan")
    checked = make_engine(model, slots=3)
    first, second, third = generate(checked, [good, bad, good])
    assert second.finish == "error"
    assert "NaN" in (second.error or "")
    assert 7 not in expected
    assert first.ids == third.ids == expected
    assert idle(checked)
    after = generate(checked, [good] * 3)  # the poisoned slot was cleaned
    assert {generation.ids for generation in after} == {first.ids}


def test_running_out_of_memory_ends_the_rows_of_that_step_only() -> None:
    checked = make_engine(make_model(), slots=2)
    forward = checked._network.forward

    def failing(*arguments: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    checked._network.forward = failing
    failed = generate(checked, [GenerationRequest((5, 6), 3)])[0]
    checked._network.forward = forward
    assert failed.finish == "error"
    assert "allocate" in (failed.error or "")
    assert generate(checked, [GenerationRequest((5, 6), 3)])[0].finish == "length"
    assert idle(checked)


def test_a_prompt_too_large_for_memory_ends_alone() -> None:
    checked = make_engine(make_model(), slots=4)
    forward = checked._network.forward

    def failing(tokens: Any, *rest: Any) -> Any:
        if len(tokens) > 50:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(tokens, *rest)

    checked._network.forward = failing
    batch = [GenerationRequest((5, 6), 6), GenerationRequest((7,) * 60, 6), GenerationRequest((8, 9, 10), 6)]
    found = generate(checked, batch)
    assert [generation.finish for generation in found] == ["length", "error", "length"]
    assert [found[0].ids, found[2].ids] == [alone(batch[0]).ids, alone(batch[2]).ids]
    assert idle(checked)


def test_a_storm_leaves_slots_threads_and_memory_as_they_were() -> None:
    import psutil

    checked = make_engine(make_model(), slots=4)
    generate(checked, [GenerationRequest((5, 6), 2)] * 8)
    threads, before = threading.active_count(), psutil.Process().memory_info().rss
    dice = random.Random(0)
    for _ in range(30):
        numbers = [
            checked.submit(GenerationRequest(tuple(dice.choices(range(3, 90), k=dice.randint(1, 60))), 5))
            for _ in range(6)
        ]
        checked.step()
        for number in dice.sample(numbers, 3):
            checked.abort(number)
        while not idle(checked):
            checked.step()
    assert threading.active_count() == threads
    assert psutil.Process().memory_info().rss - before < 64 << 20
    assert all(len(tokens) <= 128 for tokens in checked._scheduler._prefixes._tokens)


def test_a_closed_engine_refuses_and_may_be_closed_again() -> None:
    from qtool.errors import RequestError

    checked = make_engine(make_model())
    checked.close()
    checked.close()
    with pytest.raises(RequestError, match="closed"):
        checked.submit(GenerationRequest((5,), 1))


def test_bytes_of_the_cache_follow_the_budget() -> None:
    from qtool.engine.backends.qtool import QtoolEngine
    from qtool.errors import CapacityError

    shape = {"device": torch.device("cpu"), "dtype": torch.float32, "slots": 8, "context_tokens": 64}
    token_bytes = make_engine(make_model(), slots=1, context_tokens=64).cache_bytes // 64
    limited = QtoolEngine(make_model(), **shape, memory_bytes=3 * 64 * token_bytes + 1)
    assert limited.cache_bytes // token_bytes == 3 * 64
    for _ in range(8):
        limited.submit(GenerationRequest((5, 6), 62))
    limited.step()
    assert (limited.status().running, limited.status().waiting) == (3, 5)
    with pytest.raises(CapacityError, match="one sequence of 64 tokens"):
        QtoolEngine(make_model(), **shape, memory_bytes=63 * token_bytes)
    with pytest.raises(CapacityError, match="positions"):
        make_engine(make_model(), context_tokens=4096)
