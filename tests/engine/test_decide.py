"""One teacher-forced pass decides what generating would: on right answers, wrong ones and ones that go on."""

import random

from qtool.engine.contract import GenerationRequest
from qtool.engine.decide import greedy_gives
from qtool.engine.drive import generate
from tests.engine.small_models import VOCABULARY, make_engine, make_model


def test_it_agrees_with_generating() -> None:
    engine = make_engine(make_model())
    prompts = [(5, 6, 7), (9,), (11, 12, 13, 14), (20, 21)]
    verdicts = []
    for prompt in prompts:
        free = generate(engine, [GenerationRequest(prompt, 8)])[0].ids
        for stop in set(free):
            end = free.index(stop)
            for answer in (free[:end], free[: end + 1], (*free[:end], 3), free[: max(end - 1, 0)]):
                if not answer:
                    continue
                found = generate(engine, [GenerationRequest(prompt, len(answer) + 1, stop_ids=(stop,))])[0]
                expected = found.finish == "stop" and found.ids == answer
                assert greedy_gives(engine, [prompt], [answer], (stop,)) == [expected]
                verdicts.append(expected)
    assert True in verdicts
    assert False in verdicts


def test_many_items_with_shared_examples_and_several_ends_get_the_verdict_of_generating() -> None:
    """Items of one task in one call: prompts that begin alike, some answers empty, three tokens that may end one."""
    engine = make_engine(make_model())
    stream = random.Random(3)
    examples = tuple(stream.randrange(3, VOCABULARY) for _ in range(20))
    stops = (4, 17, 30)
    prompts: list[tuple[int, ...]] = []
    answers: list[tuple[int, ...]] = []
    for _ in range(60):
        prompt = examples + tuple(stream.randrange(3, VOCABULARY) for _ in range(stream.randrange(1, 6)))
        free = generate(engine, [GenerationRequest(prompt, 6)])[0].ids
        stops = (*stops, free[stream.randrange(2, 6)]) if len(stops) < 8 else stops
        prompts.append(prompt)
        answers.append(free)
    cut = [_cut(answer, stops, stream) for answer in answers]
    requests = [
        GenerationRequest(prompt, len(answer) + 1, stop_ids=stops) for prompt, answer in zip(prompts, cut, strict=True)
    ]
    expected = [
        found.finish == "stop" and found.ids == answer
        for found, answer in zip(generate(engine, requests), cut, strict=True)
    ]
    assert greedy_gives(engine, prompts, cut, stops) == expected
    assert 10 < sum(expected) < 50


def _cut(answer: tuple[int, ...], stops: tuple[int, ...], stream: random.Random) -> tuple[int, ...]:
    """What greedy decoding wrote before it ended, or now and then something else."""
    end = next((index for index, token in enumerate(answer) if token in stops), len(answer))
    kind = stream.randrange(4)
    if kind == 0:
        return (*answer[:end], 3)
    return answer[: max(end - 1, 0)] if kind == 1 else answer[:end]
