"""What the official client sends and reads, and what other clients send by habit."""

import json

import pytest
from fake_engine import FakeEngine
from live_server import Running, running_server

from qtool.serve.limits import Limits
from qtool.serve.text.exchange import choice_seed

openai = pytest.importorskip("openai")

NULLS = ("temperature", "top_p", "n", "stream", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs",
         "stop", "seed", "max_completion_tokens", "user", "stream_options", "response_format", "logit_bias", "tools",
         "tool_choice", "parallel_tool_calls", "metadata", "store", "service_tier", "modalities")  # fmt: skip
HARMLESS = ({"tools": []}, {"store": True}, {"store": False}, {"metadata": {"a": "b"}}, {"service_tier": "auto"},
            {"modalities": ["text"]}, {"parallel_tool_calls": True}, {"user": "someone"}, {"top_logprobs": 0},
            {"response_format": {"type": "text"}}, {"logit_bias": {}}, {"seed": -1}, {"max_tokens": 5.0},
            {"temperature": 0.005}, {"n": 2, "temperature": 0}, {"tool_choice": "none"}, {"stop": []},
            {"safety_identifier": "x"}, {"prompt_cache_key": "x"})  # fmt: skip


@pytest.fixture
def client(served: Running):
    """The client as its users make it."""
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_a_chat_of_five_turns_sends_every_answer_back():
    with (
        running_server(FakeEngine(context=4000)) as server,
        openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as talker,
    ):
        messages: list[object] = [{"role": "system", "content": "Be short."}]
        for turn in range(5):
            messages.append({"role": "user", "content": f"turn {turn}", "name": "Some One"})
            answer = talker.chat.completions.create(model="m", messages=messages, max_tokens=6)
            messages.append(answer.choices[0].message if turn % 2 else answer.choices[0].message.model_dump())
        assert answer.usage.prompt_tokens > 100
        assert len(messages) == 11


def test_streams_and_models_through_the_client(client: "openai.OpenAI"):
    ask = {"model": "m", "messages": [{"role": "user", "content": "x=hello"}], "max_tokens": 60, "temperature": 0}
    with client.chat.completions.stream(**ask) as stream:
        assert stream.get_final_completion().choices[0].message.content.startswith("hello")
    parts = list(client.completions.create(model="m", prompt="x=hello", max_tokens=9, stream=True))
    assert "".join(part.choices[0].text for part in parts) == "hello"
    assert client.models.retrieve("m").id == "m"
    assert [model.id for model in client.models.list()] == ["m"]
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="other", prompt="x")
    assert caught.value.param == "model"


@pytest.mark.parametrize("field", NULLS)
def test_null_means_not_given(served: Running, field: str):
    assert served.chat(**{field: None}).status_code == 200


@pytest.mark.parametrize("field", ["temperature", "top_p", "n", "logprobs", "suffix", "echo", "best_of", "stop"])
def test_null_means_not_given_in_completions(served: Running, field: str):
    assert served.complete(**{field: None}).status_code == 200


@pytest.mark.parametrize("extra", HARMLESS, ids=lambda extra: "-".join(extra))
def test_habits_that_change_nothing_are_taken(served: Running, extra: dict[str, object]):
    answer = served.chat(**extra)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "image_url"),
        ([{"role": "user", "content": 5}], "messages.0.content: must be a string"),
        ([{"role": "user"}], "messages.0.content: is required"),
        ([{"role": "user", "content": "x", "cache_control": 1}], "messages.0.cache_control"),
    ],
)
def test_errors_of_messages_name_the_real_fault(served: Running, messages: object, says: str):
    error = served.chat(messages=messages).json()["error"]
    assert says in error["message"]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"stop": ["a"] * 5}, "at most 4"),
        ({"prompt": [-1]}, "token ids must be whole numbers of at least 0"),
        ({"prompt": ["a", 1]}, "strings only"),
        ({"logit_bias": {"5": 3}}, "logit_bias"),
        ({"min_tokens": 5}, "min_tokens: this server does not support"),
    ],
)
def test_errors_of_fields_name_the_real_fault(served: Running, extra: dict[str, object], says: str):
    error = served.complete(**extra).json()["error"]
    assert says in error["message"]
    assert error["param"] == next(iter(extra))


def test_a_developer_speaks_as_the_system_does(served: Running):
    def tokens(role: str) -> int:
        messages = [{"role": role, "content": "Answer in German."}, {"role": "user", "content": "hi"}]
        return int(served.chat(messages=messages).json()["usage"]["prompt_tokens"])

    assert tokens("developer") == tokens("system")


def test_a_message_that_the_template_leaves_out_is_refused():
    class Deaf:
        """A vocabulary whose template knows users only."""

        def __init__(self) -> None:
            from fake_engine import FakeVocabulary

            self._whole = FakeVocabulary()

        def __getattr__(self, name: str) -> object:
            return getattr(self._whole, name)

        def render_chat(self, messages: list[dict[str, str]], tools: object = ()) -> str:
            return self._whole.render_chat([message for message in messages if message["role"] == "user"])

    with running_server(FakeEngine()) as server:
        server.deployment._vocabulary = Deaf()  # type: ignore[assignment]
        messages = [{"role": "system", "content": "secret rule"}, {"role": "user", "content": "hi"}]
        answer = server.chat(messages=messages)
        assert answer.status_code == 400
        assert "leaves this message out" in answer.json()["error"]["message"]


def test_a_chat_without_max_tokens_has_the_servers_length():
    with running_server(FakeEngine(context=4000), limits=Limits(default_tokens=33)) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        choice = server.client.post("/v1/chat/completions", json=body).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        assert len(choice["message"]["content"]) == 33


@pytest.mark.parametrize("stream", [False, True])
def test_a_deadline_ends_an_open_ended_chat_with_the_text_so_far(stream: bool):
    limits = Limits(default_tokens=2000, deadline_seconds=0.5)
    with running_server(FakeEngine(context=4000, step_seconds=0.01), limits=limits) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        answer = server.client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        if stream:
            parts = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
            text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
            finish = parts[-1]["choices"][0]["finish_reason"]
            assert answer.text.endswith("data: [DONE]\n\n")
        else:
            choice = answer.json()["choices"][0]
            text, finish = choice["message"]["content"], choice["finish_reason"]
        assert finish == "length"
        assert 5 < len(text) < 100
        server.wait_idle()


def test_choices_of_one_seed_are_not_those_of_the_next_seed(served: Running):
    def texts(seed: int) -> list[str]:
        answer = served.complete(n=3, temperature=1, seed=seed, max_tokens=12).json()
        return [choice["text"] for choice in answer["choices"]]

    first, second = texts(5), texts(6)
    assert first[1] != second[0]
    assert first == texts(5)
    assert first[0] == served.complete(temperature=1, seed=5, max_tokens=12).json()["choices"][0]["text"]
    seeds = [choice_seed(seed, number) for seed in range(100) for number in range(16)]
    assert len(set(seeds)) == 1600


def test_logprobs_end_where_the_text_is_cut(served: Running):
    choice = served.complete(prompt="x=one two", max_tokens=20, logprobs=0, stop=" tw").json()["choices"][0]
    assert choice["text"] == "one"
    assert choice["logprobs"]["tokens"] == ["o", "n", "e"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2]


def test_alternatives_of_equal_text_all_stay(served: Running):
    class Stutter(FakeEngine):
        """Its alternatives are byte 255 and others that decode to the same sign."""

        def step(self) -> list[object]:
            from dataclasses import replace

            return [
                replace(event, top=((event.token or 0, -0.1), (200, -1.0), (201, -2.0))) for event in super().step()
            ]

    with running_server(Stutter()) as server:
        found = server.complete(max_tokens=2, logprobs=3).json()["choices"][0]["logprobs"]
        assert [len(top) for top in found["top_logprobs"]] == [3, 3]
        assert all(top[token] == -0.1 for token, top in zip(found["tokens"], found["top_logprobs"], strict=True))


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models", "/metrics"])
def test_probes_answer_head(served: Running, path: str):
    answer = served.client.head(path)
    assert answer.status_code == 200
    assert answer.content == b""
