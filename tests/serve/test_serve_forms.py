"""Tools, reasoning, forms, responses, tokens: what goes beyond plain text."""

import json

import pytest
from live_server import Running

from qtool.serve.text.parts import Splitter

openai = pytest.importorskip("openai")

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.fixture
def client(served: Running):
    """The client as its users make it."""
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0) as made:
        yield made


def split(text: str, size: int, **marks: bool) -> tuple[str, str, int]:
    """Content, reasoning and number of calls of `text` fed in pieces of `size`."""
    splitter = Splitter(**{"tools": True, "thinks": True, **marks})
    parts = [part for place in range(0, len(text), size) for part in splitter.feed(text[place : place + size])]
    parts += splitter.end()
    by_kind = {kind: "".join(part for found, part in parts if found == kind) for kind in ("content", "reasoning")}
    return by_kind["content"], by_kind["reasoning"], len(splitter.calls)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_parts_are_told_apart_wherever_pieces_end(size: int):
    assert split("a < b <b> c", size) == ("a < b <b> c", "", 0)
    assert split(f"<think>\nhm</think>\nSo: {CALL}{CALL}", size) == ("So: ", "hm", 2) or size
    assert split(f"<think>\nhm</think>So: {CALL}", size) == ("So: ", "hm", 1)
    assert split("hm</think>So", size, thinking=True) == ("So", "hm", 0)
    assert split("<tool_call>no json</tool_call>!", size) == ("<tool_call>no json!", "", 0)
    assert split('<tool_call>{"name": "weather"}', size) == ("", "", 1)
    assert split("<think>x</think>", size, thinks=False) == ("<think>x</think>", "", 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_with_a_tool_through_the_client(client: "openai.OpenAI", stream: bool):
    ask = {"model": "m", "temperature": 0, "tools": [WEATHER], "max_tokens": 400}
    messages: list[object] = [{"role": "user", "content": "x=" + CALL}]
    with pytest.raises(openai.BadRequestError):  # the prompt of the small fake context leaves no room for 400
        client.chat.completions.create(messages=messages, **ask)
    ask["max_tokens"] = None
    short = [{"role": "user", "content": '=<tool_call>{"name":"f"}'}]
    tool = {"type": "function", "function": {"name": "f"}}
    ask["tools"] = [tool]
    if stream:
        with client.chat.completions.stream(messages=short, stop="\n[as", **{**ask, "max_tokens": 40}) as events:
            answer = events.get_final_completion()
    else:
        answer = client.chat.completions.create(messages=short, stop="\n[as", **{**ask, "max_tokens": 40})
    (call,) = answer.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("f", "{}")
    assert answer.choices[0].finish_reason == "tool_calls"
    back = [*short, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}]
    ask["max_tokens"] = 2
    assert client.chat.completions.create(messages=back, **ask).choices[0].message.content is not None


def test_reasoning_is_told_apart(served: Running):
    message = served.chat("=<think>\nhm</think>yes", max_tokens=60, stop="\n[as").json()["choices"][0]["message"]
    assert message["reasoning_content"] == "hm"
    assert message["content"] == "yes"


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"response_format": {"type": "regex", "regex": "impossible"}}, "response_format"),
        ({"tools": [WEATHER], "response_format": {"type": "regex", "regex": "x"}}, "response_format"),
    ],
)
def test_a_form_that_cannot_be_held_is_refused_by_name(served: Running, extra: dict[str, object], field: str):
    pytest.importorskip("llguidance")
    error = served.chat(**extra).json()["error"]
    assert error["param"] == field


def test_the_form_reaches_the_engine(served: Running):
    pytest.importorskip("llguidance")
    seen: list[object] = []
    submit = served.engine.submit
    served.engine.submit = lambda request: (seen.append(request.grammar), submit(request))[1]  # type: ignore
    try:
        served.chat(response_format={"type": "json_object"})
        served.chat(tools=[WEATHER], tool_choice="required")
        served.chat(tools=[WEATHER])
    finally:
        served.engine.submit = submit  # type: ignore
    assert '"json_schema"' in str(seen[0]) or "object" in str(seen[0])
    assert "weather" in str(seen[1])
    assert seen[2] is None


def test_responses_whole_and_streamed(client: "openai.OpenAI"):
    whole = client.responses.create(model="m", input="x=hello there", max_output_tokens=40, temperature=0)
    assert whole.output_text.startswith("hello there")
    assert whole.status == "completed"
    assert whole.usage.output_tokens > 5
    ask = {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "x=hello there"}]}]}
    with client.responses.stream(**ask, temperature=0, instructions="Be short.", max_output_tokens=40) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        final = events.get_final_response()
    assert text == final.output_text
    assert text.startswith("hello there")
    assert final.status == "completed"
    *_, last = client.responses.create(**ask, temperature=0, max_output_tokens=4, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"


@pytest.mark.parametrize(
    "extra", [{"previous_response_id": "resp_1"}, {"background": True}, {"input": 5}, {"input": []}]
)
def test_what_responses_cannot_do_is_refused_by_name(served: Running, extra: dict[str, object]):
    error = served.client.post("/v1/responses", json={"model": "m", "input": "hi", **extra}).json()["error"]
    assert error["param"] == next(iter(extra))


def test_tokens_there_and_back(served: Running):
    found = served.client.post("/tokenize", json={"model": "m", "prompt": "grüße", "return_token_strs": True}).json()
    assert found["count"] == len(found["tokens"]) == 8
    assert found["max_model_len"] == 128
    back = served.client.post("/detokenize", json={"model": "m", "tokens": found["tokens"]}).json()
    assert back == {"prompt": "grüße"}
    chat = served.client.post("/tokenize", json={"model": "m", "messages": [{"role": "user", "content": "hi"}]}).json()
    assert chat["count"] == served.chat("hi").json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"model": "m"}),
        ("/tokenize", {"model": "other", "prompt": "x"}),
        ("/tokenize", {"model": "m", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}),
        ("/tokenize", {"model": "m", "prompt": "x" * 10_000}),
        ("/detokenize", {"model": "m", "tokens": [-1]}),
        ("/detokenize", {"model": "m", "tokens": [258]}),
        ("/detokenize", {"model": "m", "tokens": "x"}),
    ],
)
def test_bad_requests_for_tokens(served: Running, path: str, body: dict[str, object]):
    answer = served.client.post(path, json=body)
    assert answer.status_code in (400, 404)
    assert json.loads(answer.text)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_responses_with_a_tool(client: "openai.OpenAI", stream: bool):
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    ask = {"model": "m", "input": '=<tool_call>{"name":"f"}</tool_call>', "tools": tools, "temperature": 0}
    if stream:
        with client.responses.stream(**ask, max_output_tokens=60) as events:
            final = events.get_final_response()
    else:
        final = client.responses.create(**ask, max_output_tokens=60)
    call = next(item for item in final.output if item.type == "function_call")
    assert (call.name, call.arguments) == ("f", "{}")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "5"}
    back = [{"role": "user", "content": "x"}, call.model_dump(), output]
    assert client.responses.create(model="m", input=back, tools=tools, max_output_tokens=3).status == "incomplete"
