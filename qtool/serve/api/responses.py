"""/v1/responses: the newer of OpenAI's two ways to ask for a chat answer, without its memory of earlier responses."""

import secrets
import time
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from qtool.serve.api.answers import event, message, usage
from qtool.serve.api.chat_schema import ChatRequest
from qtool.serve.api.fields import Whole
from qtool.serve.api.refusal import Refused
from qtool.serve.api.schema import Sampled, Strict, decode
from qtool.serve.deployment import Deployment
from qtool.serve.text.exchange import Choice, Exchange
from qtool.serve.text.transcript import Piece


def _input(value: object) -> object:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise ValueError("must be a string or a list of items")
    return [_item(item) for item in value]


def _item(item: object) -> dict[str, object]:
    """An input item as a chat message."""
    if not isinstance(item, dict):
        raise ValueError("every item must be an object")
    kind = item.get("type", "message")
    if kind == "message":
        return {key: item[key] for key in ("role", "content") if key in item}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "tool_calls": [call]}
    if kind == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
    if kind == "reasoning":
        return {}
    raise ValueError(f"an item of type {str(kind)[:40]!r} is not supported")


class TextFormat(Strict):
    """The form of the answer, as chat's `response_format`, but flat."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str = ""
    strict: bool = False


class TextOptions(Strict):
    """How the answer is written."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] = "medium"


class ResponsesRequest(Strict):
    """Body of POST /v1/responses. Nothing is stored: send the whole conversation as `input`."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: Annotated[
        list[dict[str, Any]],
        BeforeValidator(_input),
        WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "object"}}]}),
    ]
    instructions: str = ""
    max_output_tokens: Annotated[int, Whole, Field(ge=1, lt=2**31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stream: bool = False
    text: TextOptions | None = None
    tools: Annotated[list[dict[str, Any]], Field(default_factory=list, max_length=128)]
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    truncation: Literal["disabled"] = "disabled"
    store: bool = False
    background: Literal[False] = False
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(default_factory=dict, max_length=16)]
    user: Annotated[str, Field(max_length=256)] = ""
    safety_identifier: Annotated[str, Field(max_length=256)] = ""
    prompt_cache_key: Annotated[str, Field(max_length=256)] = ""
    service_tier: Literal["auto", "default"] = "auto"
    include: Annotated[list[str], Field(default_factory=list, max_length=0)]

    def chat(self) -> dict[str, object]:
        """The chat request that asks the same."""
        messages = [{"role": "system", "content": self.instructions}] if self.instructions else []
        body: dict[str, object] = {
            "model": self.model,
            "messages": messages + [item for item in self.input if item],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stream": self.stream,
            "max_completion_tokens": self.max_output_tokens,
            "parallel_tool_calls": self.parallel_tool_calls,
            "metadata": self.metadata,
            "user": self.user,
            "tools": [_tool(tool) for tool in self.tools],
            "tool_choice": _choice(self.tool_choice),
        }
        form = self.text.format if self.text else None
        if form is not None and form.type == "json_schema":
            schema = {"name": form.name, "schema": form.schema_, "strict": form.strict}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form is not None:
            body["response_format"] = {"type": form.type}
        return body


def read(document: dict[str, object]) -> ChatRequest:
    """The chat request that a body of /v1/responses asks for. Raises Refused naming the first wrong field."""
    return decode(ChatRequest, decode(ResponsesRequest, document).chat())


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function" or "function" in tool:
        return tool
    return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function" and "name" in choice:
        return {"type": "function", "function": {"name": choice["name"]}}
    return choice


class ResponsesShape:
    """Answers of /v1/responses: one response with its output items."""

    def __init__(self, asked: Sampled, deployment: Deployment) -> None:
        self._asked = asked
        self._id = f"resp_{secrets.token_hex(12)}"
        self._item = f"msg_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._fingerprint = deployment.fingerprint
        self._sent = 0
        self._text = ""

    def whole(self, exchange: Exchange) -> dict[str, object]:
        """The finished response."""
        choice = exchange.choices[0]
        told = message(choice.transcript.text, exchange.splitter())
        cut = choice.transcript.finish == "length"
        counts = usage(exchange)
        output = [{"type": "function_call", "id": f"fc_{secrets.token_hex(8)}", "status": "completed",
                   "call_id": call["id"], **call["function"]}
                  for call in told.get("tool_calls", ())]  # type: ignore[attr-defined]  # fmt: skip
        if told["content"] or not output:
            output.insert(0, self._message(str(told["content"] or ""), "incomplete" if cut else "completed"))
        tokens = {"input_tokens": counts["prompt_tokens"], "output_tokens": counts["completion_tokens"]}
        return {
            **self._response("incomplete" if cut else "completed"),
            "output": output,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": {
                **tokens,
                "total_tokens": counts["total_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }

    def begin(self, exchange: Exchange) -> bytes:
        """The response and its message are announced."""
        item = {**self._message("", "in_progress"), "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        return (
            self._event("response.created", response=self._response("in_progress"))
            + self._event("response.in_progress", response=self._response("in_progress"))
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", item_id=self._item, output_index=0, content_index=0, part=part)
        )

    def piece(self, choice: Choice, piece: Piece) -> bytes:
        """New text of the message; reasoning and calls come with the end."""
        parts = choice.splitter.feed(piece.text)
        if piece.finish is not None:
            parts += choice.splitter.end()
        text = "".join(part for kind, part in parts if kind == "content")
        self._text += text
        if not text:
            return b""
        return self._event(
            "response.output_text.delta", item_id=self._item, output_index=0, content_index=0, delta=text, logprobs=[]
        )

    def end(self, exchange: Exchange) -> bytes:
        """The message, each call, and the response are complete."""
        place = {"item_id": self._item, "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": self._text, "annotations": []}
        finished = self.whole(exchange)
        events = self._event("response.output_text.done", **place, text=self._text, logprobs=[])
        events += self._event("response.content_part.done", **place, part=part)
        message_item = self._message(self._text, "completed")
        calls = [item for item in finished["output"] if item["type"] == "function_call"]  # type: ignore[attr-defined]
        finished["output"] = [message_item, *calls]
        events += self._event("response.output_item.done", output_index=0, item=message_item)
        for index, call in enumerate(calls, 1):
            events += self._event("response.output_item.added", output_index=index, item={**call, "arguments": ""})
            events += self._event(
                "response.function_call_arguments.done",
                item_id=call["id"], output_index=index, name=call["name"], arguments=call["arguments"],
            )  # fmt: skip
            events += self._event("response.output_item.done", output_index=index, item=call)
        return events + self._event(f"response.{finished['status']}", response=finished)

    def failure(self, refused: Refused) -> bytes:
        """The response has failed."""
        error = {"code": "server_error", "message": refused.message}
        failed = {**self._response("failed"), "error": error}
        return self._event("response.failed", response=failed)

    def _response(self, status: str) -> dict[str, object]:
        asked = self._asked
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": asked.model,
            "output": [],
            "parallel_tool_calls": True,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "tool_choice": "auto",
            "tools": [],
            "store": False,
            "metadata": asked.metadata,
            "usage": None,
        }

    def _message(self, text: str, status: str) -> dict[str, object]:
        content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
        return {"type": "message", "id": self._item, "status": status, "role": "assistant", "content": content}

    def _event(self, kind: str, /, **fields: object) -> bytes:
        number, self._sent = self._sent, self._sent + 1
        return event({"type": kind, "sequence_number": number, **fields}, kind)
