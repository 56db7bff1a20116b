"""What a request may not ask: each is refused by name, and everyone else's tokens are unchanged."""

from typing import Any

import pytest

from qtool.engine.contract import GenerationRequest, Sampling, ScoreRequest
from qtool.engine.drive import generate
from qtool.engine.scheduling.stop import StopWatch, cut_at_stop
from qtool.errors import RequestError
from tests.engine.small_models import CONTEXT, VOCABULARY, make_engine, make_model

GOOD = GenerationRequest((5, 6, 7), 4)
BAD: dict[str, tuple[GenerationRequest, str]] = {
    "empty prompt": (GenerationRequest((), 4), "empty"),
    "id too large": (GenerationRequest((VOCABULARY,), 4), "no token id"),
    "negative id": (GenerationRequest((-1,), 4), "no token id"),
    "bool id": (GenerationRequest((True,), 4), "no token id"),
    "float id": (GenerationRequest((1.0,), 4), "no token id"),  # type: ignore[arg-type]
    "prompt over context": (GenerationRequest((5,) * (CONTEXT + 1), 1), "context"),
    "output over context": (GenerationRequest((5,) * CONTEXT, 1), "context"),
    "max tokens 0": (GenerationRequest((5,), 0), "max_new_tokens"),
    "max tokens negative": (GenerationRequest((5,), -5), "max_new_tokens"),
    "max tokens huge": (GenerationRequest((5,), 10**30), "context"),
    "temperature NaN": (GenerationRequest((5,), 1, Sampling(temperature=float("nan"))), "temperature"),
    "temperature negative": (GenerationRequest((5,), 1, Sampling(temperature=-1.0)), "temperature"),
    "temperature tiny": (GenerationRequest((5,), 1, Sampling(temperature=1e-9)), "temperature"),
    "temperature huge": (GenerationRequest((5,), 1, Sampling(temperature=1e9)), "temperature"),
    "top_p 0": (GenerationRequest((5,), 1, Sampling(top_p=0.0)), "top_p"),
    "top_p above 1": (GenerationRequest((5,), 1, Sampling(top_p=1.1)), "top_p"),
    "top_k negative": (GenerationRequest((5,), 1, Sampling(top_k=-2)), "top_k"),
    "min_p 2": (GenerationRequest((5,), 1, Sampling(min_p=2.0)), "min_p"),
    "penalty infinite": (GenerationRequest((5,), 1, Sampling(presence_penalty=float("inf"))), "presence_penalty"),
    "logprobs a million": (GenerationRequest((5,), 1, logprobs=10**6), "logprobs"),
    "stop of 1 MB": (GenerationRequest((5,), 1, stop=("x" * (1 << 20),)), "stop string"),
    "empty stop": (GenerationRequest((5,), 1, stop=("",)), "stop string"),
    "10k stops": (GenerationRequest((5,), 1, stop=("x",) * 10_000), "stop strings"),
    "stop id out of range": (GenerationRequest((5,), 1, stop_ids=(VOCABULARY,)), "stop id"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_requests_are_refused_alone(case: str) -> None:
    engine = make_engine(make_model(), decode=_letters)
    expected = generate(engine, [GOOD])[0].ids
    bad, word = BAD[case]
    number = engine.submit(GOOD)
    with pytest.raises(RequestError, match=word):
        engine.submit(bad)
    tokens = [event.token for _ in range(6) for event in engine.step() if event.request == number]
    assert tuple(token for token in tokens if token is not None) == expected
    assert engine.status().running == 0


def test_a_bad_request_among_many_ends_with_its_error() -> None:
    results = generate(make_engine(make_model()), [GOOD, BAD["id too large"][0], GOOD])
    assert [result.finish for result in results] == ["length", "error", "length"]
    assert "no token id" in (results[1].error or "")


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (ScoreRequest((), (5,)), "empty"),
        (ScoreRequest((5,), ()), "empty"),
        (ScoreRequest((5,), (VOCABULARY,)), "no token id"),
        (ScoreRequest((5,) * CONTEXT, (5,)), "context"),
    ],
)
def test_bad_score_requests_are_refused(request_: ScoreRequest, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        make_engine(make_model()).score([ScoreRequest((5,), (6,)), request_])


def test_stop_strings_need_a_tokenizer() -> None:
    with pytest.raises(RequestError, match="tokenizer"):
        make_engine(make_model()).submit(GenerationRequest((5,), 1, stop=("x",)))


def _letters(ids: Any) -> str:
    return "".join(chr(32 + token) for token in ids)


def test_a_stop_string_across_token_borders_ends_the_request() -> None:
    engine = make_engine(make_model(), decode=_letters)
    free = generate(engine, [GenerationRequest((5, 6, 7), 12)])[0].ids
    text = _letters(free)
    stop = text[4:7]
    stopped = generate(engine, [GenerationRequest((5, 6, 7), 12, stop=(stop,))])[0]
    assert stopped.finish == "stop"
    assert stopped.ids == free[: text.find(stop) + 3]
    assert cut_at_stop(_letters(stopped.ids), (stop,)) == text[: text.find(stop)]


def test_a_stop_string_across_utf8_borders_is_seen() -> None:
    """Byte tokens: the stop's character is complete only with the last of its three bytes."""
    parts = [b"a", *(bytes([byte]) for byte in "→".encode()), b"b"]

    def decode(ids: Any) -> str:
        return b"".join(parts[token] for token in ids).decode("utf-8", "replace")

    watch = StopWatch(("→",), decode)
    assert [watch.reached(range(count)) for count in range(1, 6)] == [False, False, False, True, True]


def test_a_stop_id_is_not_part_of_the_output() -> None:
    engine = make_engine(make_model())
    free = generate(engine, [GenerationRequest((5, 6, 7), 6)])[0].ids
    stopped = generate(engine, [GenerationRequest((5, 6, 7), 6, stop_ids=(free[3],))])[0]
    assert stopped.finish == "stop"
    assert stopped.ids == free[: free.index(free[3])]


def test_logprobs_come_with_alternatives() -> None:
    engine = make_engine(make_model())
    engine.submit(GenerationRequest((5, 6), 2, logprobs=3))
    events = [event for _ in range(3) for event in engine.step()]
    for event in events:
        assert len(event.top) == 3
        assert event.top[0] == (event.token, pytest.approx(event.logprob, abs=1e-5))


def test_penalties_and_filters_change_what_is_drawn() -> None:
    engine = make_engine(make_model())
    greedy = generate(engine, [GenerationRequest((5, 6), 16)])[0].ids
    penalized = generate(engine, [GenerationRequest((5, 6), 16, Sampling(frequency_penalty=2.0))])[0].ids
    assert len(set(penalized)) >= len(set(greedy))
    for narrow in (Sampling(temperature=1.0, top_k=1), Sampling(temperature=1.0, top_p=1e-6), Sampling(1.0, min_p=1.0)):
        assert generate(engine, [GenerationRequest((5, 6), 16, narrow)])[0].ids == greedy
    drawn = [generate(engine, [GenerationRequest((5, 6), 8, Sampling(2.0, seed=seed))])[0].ids for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
