"""Answers as OpenAI clients expect them, streamed and whole."""

import json

import pytest
from fake_engine import FakeEngine, FakeVocabulary
from live_server import Running

from qtool.engine.contract import GenerationRequest


def events(text: str) -> list[object]:
    """The decoded data of a stream; its end marker as the string [DONE]."""
    found = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) if line != "[DONE]" else line for line in found]


def test_completion_has_text_usage_and_identity(served: Running):
    answer = served.complete(prompt="x=hello", max_tokens=20)
    body = answer.json()
    assert answer.status_code == 200
    assert body["object"] == "text_completion"
    assert body["model"] == "m"
    assert body["system_fingerprint"] == "qtool-abc"
    assert body["choices"] == [{"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 8, "completion_tokens": 5, "total_tokens": 13}
    assert answer.headers["x-qtool-variant"] == "w8a16"
    assert answer.headers["x-request-id"]


def test_chat_uses_the_template_and_answers_as_assistant(served: Running):
    body = served.chat("x=good day", max_tokens=60).json()
    assert body["object"] == "chat.completion"
    message = body["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert message["content"].startswith("good day\n[assistant]")


def test_length_ends_an_answer(served: Running):
    choice = served.complete(max_tokens=3).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert len(choice["text"]) == 3


def test_stream_gives_the_same_text_as_the_whole_answer(served: Running):
    whole = served.complete(prompt="x=grüße, wörld", max_tokens=40).json()
    parts = events(served.complete(prompt="x=grüße, wörld", max_tokens=40, stream=True).text)
    assert parts[-1] == "[DONE]"
    text = "".join(part["choices"][0]["text"] for part in parts[:-1])
    assert text == whole["choices"][0]["text"] == "grüße, wörld"
    assert parts[-2]["choices"][0]["finish_reason"] == "stop"
    assert "\ufffd" not in text


def test_chat_stream_opens_with_the_role_and_ends_with_usage(served: Running):
    answer = served.chat("x=hey", stream=True, stream_options={"include_usage": True})
    parts = events(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert parts[-2]["choices"] == []
    assert parts[-2]["usage"]["completion_tokens"] == 8
    assert parts[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_is_cut_out_across_tokens(served: Running, stream: bool):
    answer = served.complete(prompt="x=one two three", max_tokens=40, stop=["two th", "zzz"], stream=stream)
    if stream:
        parts = events(answer.text)[:-1]
        text = "".join(part["choices"][0]["text"] for part in parts)
        finish = parts[-1]["choices"][0]["finish_reason"]
    else:
        text, finish = answer.json()["choices"][0]["text"], answer.json()["choices"][0]["finish_reason"]
    assert text == "one "
    assert finish == "stop"
    served.wait_idle()


def test_stop_inside_a_character_of_many_bytes(served: Running):
    body = served.complete(prompt="x=aäöb", max_tokens=40, stop="ö").json()
    assert body["choices"][0]["text"] == "aä"


def test_same_seed_same_answer_other_seed_other_answer(served: Running):
    first, again, other = (
        served.complete(temperature=1, seed=seed, max_tokens=8).json()["choices"][0]["text"] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_many_choices_of_many_prompts_are_ordered(served: Running):
    body = served.complete(prompt=["ab", "cd"], n=3, temperature=1, seed=5, max_tokens=4).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(6))
    assert len({choice["text"] for choice in body["choices"][:3]}) == 3
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 24, "total_tokens": 30}


def test_token_ids_are_prompts_too(served: Running):
    body = served.complete(prompt=list(b"x=abc"), max_tokens=9).json()
    assert body["choices"][0]["text"] == "abc"
    body = served.complete(prompt=[list(b"x=abc"), list(b"x=d")], max_tokens=9).json()
    assert [choice["text"] for choice in body["choices"]] == ["abc", "d"]


def test_ignore_eos_goes_on(served: Running):
    body = served.complete(prompt="x=ab", max_tokens=6, ignore_eos=True).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 6


def test_completion_logprobs(served: Running):
    found = served.complete(max_tokens=3, logprobs=2).json()["choices"][0]["logprobs"]
    assert found["token_logprobs"] == [-0.25] * 3
    assert found["text_offset"] == [0, 1, 2]
    assert found["top_logprobs"][0] == {"a": -0.5, "b": -1.5}


def test_chat_logprobs_stream_together_hold_every_token_once(served: Running):
    parts = events(served.chat("x=äbc", logprobs=True, top_logprobs=1, stream=True).text)
    tokens = [
        token
        for part in parts[:-1]
        if part["choices"][0]["logprobs"]
        for token in part["choices"][0]["logprobs"]["content"]
    ]
    assert len(tokens) == 8
    assert tokens[2] == {"token": "b", "logprob": -0.25, "bytes": [98], "top_logprobs": tokens[2]["top_logprobs"]}


def test_models_lists_what_is_served(served: Running):
    (model,) = served.client.get("/v1/models").json()["data"]
    assert model["id"] == "m"
    assert model["root"] == "w8a16"
    assert model["max_model_len"] == 128


def test_requests_that_wait_are_batched(served: Running):
    import concurrent.futures

    served.engine.step_seconds = 0.01
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda index: served.complete(prompt=f"p{index}", max_tokens=10), range(4)))
    served.engine.step_seconds = 0.0
    assert all(answer.status_code == 200 for answer in answers)
    assert served.engine.peak >= 3
    alone = FakeEngine()
    for index, answer in enumerate(answers):
        ids = FakeVocabulary().encode(f"p{index}")
        alone.submit(GenerationRequest(ids, 10))
        tokens = [event.token for _ in range(10) for event in alone.step()]
        assert answer.json()["choices"][0]["text"] == bytes(tokens).decode()


def test_openapi_describes_the_bodies(served: Running):
    schema = served.client.get("/openapi.json").json()
    body = schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["additionalProperties"] is False
    assert {"messages", "temperature", "max_completion_tokens"} <= set(body["properties"])
    assert "$ref" not in json.dumps(body)


@pytest.mark.parametrize("stream", [False, True])
def test_token_ids_come_with_the_text_they_make(served: Running, stream: bool):
    answer = served.complete(prompt="x=abc", max_tokens=20, return_token_ids=True, stream=stream)
    if stream:
        choices = [part["choices"][0] for part in events(answer.text)[:-1]]
        ids, text = [id_ for choice in choices for id_ in choice["token_ids"]], "".join(c["text"] for c in choices)
    else:
        choice = answer.json()["choices"][0]
        ids, text = choice["token_ids"], choice["text"]
        assert FakeVocabulary().decode(choice["prompt_token_ids"]).endswith("x=abc")
    assert FakeVocabulary().decode(ids) == text == "abc"


def test_a_token_id_ends_an_answer_as_a_stop_string_does(served: Running):
    whole = served.complete(prompt="x=abc", max_tokens=20, return_token_ids=True).json()["choices"][0]
    cut = served.complete(prompt="x=abc", max_tokens=20, stop_token_ids=[whole["token_ids"][1]]).json()["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == ("a", "stop")


def test_the_openai_backend_reads_this_server(served: Running):
    from qtool.engine.backends.openai import OpenAIEngine
    from qtool.engine.drive import generate

    engine = OpenAIEngine(served.address, slots=2)
    prompt = tuple(served.complete(prompt="x=abc", return_token_ids=True).json()["choices"][0]["prompt_token_ids"])
    found = generate(engine, [GenerationRequest(prompt, 8, stop_ids=(0,))])[0]
    engine.close()
    assert found.error is None
    assert FakeVocabulary().decode(found.ids) == "abc"
