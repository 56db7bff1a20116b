"""The `openai` backend against a made-up server: streams, scores, errors, aborts; nothing listens on a port."""

import json
import math
from typing import Any

import httpx
import pytest

from qtool.engine.backends.openai import OpenAIEngine
from qtool.engine.contract import GenerationRequest, ScoreRequest
from qtool.engine.drive import generate
from qtool.errors import CapacityError, RequestError
from qtool.latency.timing import Load
from qtool.latency.traffic import random_requests, send


def serve(request: httpx.Request) -> httpx.Response:
    """Answers ids n, n + 1, ... after a prompt that ends in n - 1; a prompt of 666 is refused."""
    if request.url.path == "/v1/models":
        return httpx.Response(200, json={"data": [{"id": "tiny", "max_model_len": 64}]})
    body: dict[str, Any] = json.loads(request.content)
    prompt = body["prompt"]
    if prompt == [666]:
        return httpx.Response(400, json={"error": "no"})
    if body.get("echo"):
        names = [str(token) for token in prompt]
        tops = [{name: -0.5, "other": -2.0} for name in names]
        logprobs = {"tokens": names, "token_logprobs": [None, *[-0.5] * (len(prompt) - 1)], "top_logprobs": tops}
        return httpx.Response(200, json={"choices": [{"logprobs": logprobs}]})
    lines = []
    for index in range(body["max_tokens"]):
        last = index == body["max_tokens"] - 1
        choice = {
            "text": "x",
            "token_ids": [prompt[-1] + 1 + index],
            "logprobs": {"token_logprobs": [-0.25]},
            "finish_reason": "length" if last else None,
        }
        lines.append(f"data: {json.dumps({'choices': [choice]})}\n\n")
    return httpx.Response(200, text="".join([*lines, "data: [DONE]\n\n"]))


def engine() -> OpenAIEngine:
    return OpenAIEngine("http://server/v1", slots=2, transport=httpx.MockTransport(serve))


def test_tokens_and_finish_come_through() -> None:
    found = generate(engine(), [GenerationRequest((5, 6), 3), GenerationRequest((9,), 1)])
    assert [generation.ids for generation in found] == [(7, 8, 9), (10,)]
    assert {generation.finish for generation in found} == {"length"}
    assert found[0].logprobs == (-0.25, -0.25, -0.25)


def test_a_refused_request_ends_alone() -> None:
    found = generate(engine(), [GenerationRequest((666,), 3), GenerationRequest((5,), 2)])
    assert [generation.finish for generation in found] == ["error", "length"]
    assert "400" in (found[0].error or "")


def test_scores_come_from_an_echo() -> None:
    scored = engine().score([ScoreRequest((5, 6), (7, 8))])[0]
    assert scored.logprobs == (-0.5, -0.5)
    assert scored.greedy == (True, True)
    assert scored.margins == (1.5, 1.5)


def test_limits_of_the_server_are_kept() -> None:
    with pytest.raises(RequestError, match="context"):
        engine().submit(GenerationRequest((5,) * 60, 10))


def test_it_is_timed_like_any_engine() -> None:
    requests = list(random_requests(6, prompt_tokens=4, output_tokens=3, vocabulary=50, seed=0))
    timed, seconds = send(engine(), requests, Load(2))
    assert len(timed) == 6
    assert seconds > 0
    assert all(len(request.token_times_s) == 3 and request.failed is None for request in timed)


def test_what_is_no_server_is_said() -> None:
    with pytest.raises(CapacityError, match="does not answer"):
        OpenAIEngine("http://server", transport=httpx.MockTransport(lambda request: httpx.Response(404)))


def only_text(request: httpx.Request) -> httpx.Response:
    """A server that knows no token ids: it refuses the field that asks for them and answers in two pieces of text."""
    if request.url.path == "/v1/models":
        return httpx.Response(200, json={"data": [{"id": "tiny"}]})
    if "return_token_ids" in json.loads(request.content):
        return httpx.Response(400, json={"error": "return_token_ids: unknown field"})
    parts = [{"text": "a"}, {"text": "b", "finish_reason": "stop"}]
    return httpx.Response(200, text="".join(f"data: {json.dumps({'choices': [part]})}\n\n" for part in parts))


def test_text_without_ids_is_encoded_when_the_answer_is_whole() -> None:
    remote = OpenAIEngine(
        "http://server", encode=lambda text: [ord(letter) for letter in text], transport=httpx.MockTransport(only_text)
    )
    found = generate(remote, [GenerationRequest((5,), 4)])[0]
    assert (found.ids, found.finish) == ((ord("a"), ord("b")), "stop")


def test_text_that_cannot_be_encoded_fails_its_request_alone() -> None:
    def refuse(text: str) -> list[int]:
        raise RequestError(f"no ids for {text!r}")

    remote = OpenAIEngine("http://server", encode=refuse, transport=httpx.MockTransport(only_text))
    found = generate(remote, [GenerationRequest((5,), 4)])[0]
    assert (found.finish, found.error) == ("error", "no ids for 'ab'")


def test_without_ids_or_an_encoder_tokens_are_counted_and_timed() -> None:
    remote = OpenAIEngine("http://server", transport=httpx.MockTransport(only_text))
    assert generate(remote, [GenerationRequest((5,), 4)])[0].ids == (-1, -1)


def test_alternatives_of_equal_text_are_other_tokens() -> None:
    """A server that names alternatives by text shows another token's value under the chosen token's name."""

    def stutter(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "tiny", "max_model_len": 64}]})
        tops = [{}, {"\ufffd": -0.7, "a": -3.0}, {"\ufffd": -0.5}, {"\ufffd": -0.1, "a": -4.0}]
        own = [None, -2.0, -0.5, -0.1]
        logprobs = {"tokens": ["\ufffd"] * 4, "token_logprobs": own, "top_logprobs": tops}
        return httpx.Response(200, json={"choices": [{"logprobs": logprobs}]})

    remote = OpenAIEngine("http://server", transport=httpx.MockTransport(stutter))
    (scored,) = remote.score([ScoreRequest((1,), (2, 3, 4))])
    assert scored.margins[0] == pytest.approx(-2.0 + 0.7)  # another token of the same text is likelier
    assert scored.margins[1] == pytest.approx(-0.5 - math.log(1 - math.exp(-0.5)))  # all that is left for the others
    assert scored.margins[2] == pytest.approx(-0.1 + 4.0)
    assert scored.greedy == (False, True, True)


def test_a_busy_server_is_asked_again() -> None:
    asked = []

    def busy(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/v1/models":
            asked.append(1)
            if len(asked) < 3:
                return httpx.Response(503, json={"error": "full"}, headers={"retry-after": "0"})
        return serve(request)

    remote = OpenAIEngine("http://server", transport=httpx.MockTransport(busy))
    (found,) = generate(remote, [GenerationRequest((5,), 2)])
    assert found.ids == (6, 7)
    assert len(asked) == 3
