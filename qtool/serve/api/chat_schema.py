"""Body of POST /v1/chat/completions: messages, tools, and the form that an answer must have."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from qtool.serve.api.fields import Whole
from qtool.serve.api.schema import Sampled, Strict

_MOST_PARTS = 64
_TOOL_NAME = r"^[A-Za-z0-9_.-]{1,64}$"


def _content(value: object) -> object:
    """The text of a message's content: a string, or text parts joined."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("must be a string or a list of text parts")
    if not 0 < len(value) <= _MOST_PARTS:
        raise ValueError(f"has {len(value)} parts; 1 to {_MOST_PARTS} are allowed")
    return "".join(_part(part) for part in value)


def _part(part: object) -> str:
    if not isinstance(part, dict):
        raise ValueError("every part must be an object such as {'type': 'text', 'text': '...'}")
    kind = part.get("type")
    given = {key: value for key, value in part.items() if value is not None}
    if kind == "refusal" and set(given) == {"type", "refusal"} and isinstance(given["refusal"], str):
        return str(given["refusal"])
    if kind not in ("text", "input_text", "output_text"):
        raise ValueError(f"a part of type {str(kind)[:40]!r} is not supported; this model reads text only")
    extra = sorted(set(given) - {"type", "text", "annotations", "logprobs"})
    if extra:
        raise ValueError(f"a text part has the field {extra[0][:40]!r}, which this server does not support")
    if not isinstance(given.get("text"), str):
        raise ValueError("a text part has no text")
    return str(given["text"])


_PART_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
    "additionalProperties": False,
}
Content = Annotated[
    str,
    BeforeValidator(_content),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": _PART_SCHEMA, "minItems": 1, "maxItems": _MOST_PARTS},
            ]
        }
    ),
]


class CalledFunction(Strict):
    """Name and arguments (JSON text) of a call that the model made."""

    name: Annotated[str, Field(pattern=_TOOL_NAME)]
    arguments: str
    parsed_arguments: Any = None  # the openai client's own reading of them, sent back with the rest


class ToolCall(Strict):
    """A call that an assistant message made, sent back by the client."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int = 0  # of a streamed call


class Message(Strict):
    """One message of a conversation. What an answer of this server holds may be sent back as it is."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = ""
    name: Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f]+$")] = ""
    tool_calls: Annotated[list[ToolCall], Field(default_factory=list, max_length=64)]
    tool_call_id: Annotated[str, Field(min_length=1, max_length=128)] = ""
    reasoning_content: str = ""
    refusal: str = ""
    annotations: Annotated[list[object], Field(default_factory=list, max_length=0)]

    @model_validator(mode="after")
    def _fits_its_role(self) -> "Message":
        if "content" not in self.model_fields_set and not self.tool_calls and not self.refusal:
            raise ValueError("content: is required")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"tool_calls: only an assistant message has them, not one of role {self.role!r}")
        if bool(self.tool_call_id) != (self.role == "tool"):
            raise ValueError("tool_call_id: a message of role 'tool' needs it, and no other has it")
        return self


class FunctionTool(Strict):
    """A function that the model may call; `parameters` is a JSON schema of an object."""

    name: Annotated[str, Field(pattern=_TOOL_NAME)]
    description: Annotated[str, Field(max_length=10_000)] = ""
    parameters: Annotated[dict[str, Any], Field(default_factory=dict)]
    strict: bool = False


class Tool(Strict):
    """A tool that the model may use."""

    type: Literal["function"]
    function: FunctionTool


class NamedFunction(Strict):
    """The name of a function."""

    name: Annotated[str, Field(pattern=_TOOL_NAME)]


class NamedTool(Strict):
    """The one tool that the model must call."""

    type: Literal["function"]
    function: NamedFunction


def _tool_choice(value: object) -> object:
    if isinstance(value, str) and value not in ("none", "auto", "required"):
        raise ValueError("must be 'none', 'auto', 'required' or an object that names a function")
    if not isinstance(value, str | dict):
        raise ValueError("must be 'none', 'auto', 'required' or an object that names a function")
    return value


class JsonSchema(Strict):
    """A JSON schema that the answer must satisfy."""

    name: Annotated[str, Field(pattern=_TOOL_NAME)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: Annotated[str, Field(max_length=10_000)] = ""
    strict: bool = False


class ResponseFormat(Strict):
    """The form of an answer: free text, any JSON object, JSON of a schema, a regular expression, or a Lark grammar."""

    type: Literal["text", "json_object", "json_schema", "regex", "grammar"]
    json_schema: JsonSchema | None = None
    regex: Annotated[str, Field(min_length=1, max_length=10_000)] | None = None
    grammar: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None

    @model_validator(mode="after")
    def _says_which(self) -> "ResponseFormat":
        for name in ("json_schema", "regex", "grammar"):
            if (getattr(self, name) is not None) != (self.type == name):
                raise ValueError(f"{name}: belongs to type {name!r}, and that type needs it")
        return self


class ChatRequest(Sampled):
    """Body of POST /v1/chat/completions. Templates come from the bundle alone, never from a client."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Whole, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Whole, Field(ge=0, le=20)] = 0
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(default_factory=list, max_length=128)]
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | NamedTool | None,
        BeforeValidator(_tool_choice),
    ] = None
    parallel_tool_calls: bool = True
    modalities: Annotated[list[Literal["text"]], Field(default_factory=lambda: ["text"])]

    @model_validator(mode="after")
    def _fits_together(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: needs logprobs = true")
        both = (self.max_tokens, self.max_completion_tokens)
        if None not in both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_completion_tokens: differs from max_tokens; give one of them")
        if not self.tools and self.tool_choice not in (None, "none", "auto"):
            raise ValueError("tool_choice: there are no tools to choose from")
        return self

    @property
    def alternatives(self) -> int | None:
        """Alternatives per token to report log-probabilities for; None for no log-probabilities at all."""
        return self.top_logprobs if self.logprobs else None

    @property
    def open_ended(self) -> bool:
        """Whether the client left the length of the answer to the server."""
        return self.max_tokens is None and self.max_completion_tokens is None
