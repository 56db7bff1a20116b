"""What clients may ask, precisely: unknown fields are refused, so that nothing is ignored in silence."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from qtool.engine.contract import Sampling
from qtool.serve.refusal import Refused

_SMALLEST_TEMPERATURE = 0.01
Asked = TypeVar("Asked", bound="Sampled")
StopText = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    """`include_usage` adds one last chunk with token counts."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False


class ResponseFormat(BaseModel):
    """Only plain text: this server does not constrain its output to a grammar."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]


class Sampled(BaseModel):
    """What both endpoints have in common: sampling, length, number and form of the answers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    model: Annotated[str, Field(min_length=1, max_length=256)]
    n: Annotated[int, Field(ge=1, le=128)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] = []
    ignore_eos: bool = False
    return_token_ids: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Annotated[str, Field(max_length=256)] | None = None

    @field_validator("temperature")
    @classmethod
    def _not_nearly_zero(cls, value: float) -> float:
        if 0 < value < _SMALLEST_TEMPERATURE:
            raise ValueError(f"must be 0 (greedy) or at least {_SMALLEST_TEMPERATURE}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Sampled":
        if self.n > 1 and self.temperature == 0:
            raise ValueError("n > 1 with temperature 0 would give the same answer n times; set a temperature")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream = true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def alternatives(self) -> int | None:
        """Alternatives a token to report log-probabilities for; None for no log-probabilities at all."""
        raise NotImplementedError

    @property
    def prompt_count(self) -> int:
        """Prompts in this request."""
        return 1

    def sampling(self, seed: int) -> Sampling:
        """What the engine is told for one choice."""
        return Sampling(
            temperature=self.temperature,
            top_k=max(self.top_k, 0),
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=seed,
        )


class CompletionRequest(Sampled):
    """Body of POST /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=128)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=128)]
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] = False
    best_of: Literal[1] | None = None
    suffix: None = None

    @property
    def alternatives(self) -> int | None:
        """Alternatives a token to report log-probabilities for; None for no log-probabilities at all."""
        return self.logprobs

    @property
    def prompt_count(self) -> int:
        """Prompts in this request."""
        return len(self.prompts)

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each prompt apart, as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [part for part in self.prompt if not isinstance(part, int)]


class TextPart(BaseModel):
    """A text part of a message; images and sound are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=64, pattern=r"^[\w.-]+$")] | None = None

    @property
    def text(self) -> str:
        """The whole text of the message."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Sampled):
    """Body of POST /v1/chat/completions. Templates come from the bundle alone, never from a client."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _logprobs_go_together(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs = true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give max_completion_tokens or max_tokens, not both")
        return self

    @property
    def alternatives(self) -> int | None:
        """Alternatives a token to report log-probabilities for; None for no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def decode(kind: type[Asked], document: dict[str, object]) -> Asked:
    """`document` as `kind`. Raises Refused naming the first wrong field."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "this server does not know this field"
        raise Refused(400, f"{field[:80] or 'body'}: {message}", param=field[:80] or None) from error


def _is_branch(part: int | str) -> bool:
    """Whether `part` of an error's location is pydantic's name of a union member, not a field of the body."""
    return isinstance(part, str) and ("[" in part or part in ("str", "constrained-str", "int"))
