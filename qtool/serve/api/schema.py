"""What clients may ask, precisely: a field that is not honoured is refused by name; null means "not given"."""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qtool.engine.contract import Sampling
from qtool.serve.api.fields import Prompts, Stops, TokenId, Whole
from qtool.serve.api.refusal import Refused

_GREEDY_BELOW = 0.01  # a distribution this sharp is its most likely token, and dividing by less overflows
_NAMED = re.compile(r"([a-z_]+): ")
Asked = TypeVar("Asked", bound="Strict")


class Strict(BaseModel):
    """No unknown fields, no conversions, no NaN; a field that is null is a field not given."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: part for key, part in value.items() if part is not None}
        return value


class StreamOptions(Strict):
    """`include_usage` adds one last chunk with token counts."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Sampled(Strict):
    """What all endpoints have in common: sampling, length, number and form of the answers."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    n: Annotated[int, Whole, Field(ge=1, le=128)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Whole, Field(ge=-1, lt=2**31)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] = 1.0
    seed: Annotated[int, Whole, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Whole, Field(ge=1, lt=2**31)] | None = None
    stop: Stops = ()
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] = []
    ignore_eos: bool = False
    return_token_ids: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] = {}
    user: Annotated[str, Field(max_length=256)] = ""
    # taken because clients send them by habit; none changes an answer
    safety_identifier: Annotated[str, Field(max_length=256)] = ""
    prompt_cache_key: Annotated[str, Field(max_length=256)] = ""
    store: bool = False
    metadata: Annotated[dict[str, Annotated[str, Field(max_length=512)]], Field(max_length=16)] = {}
    service_tier: Literal["auto", "default"] = "auto"

    @model_validator(mode="after")
    def _usage_is_of_streams(self) -> "Sampled":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: needs stream = true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return self.stop

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def alternatives(self) -> int | None:
        """Alternatives per token to report log-probabilities for; None for no log-probabilities at all."""
        raise NotImplementedError

    @property
    def open_ended(self) -> bool:
        """Whether the client left the length of the answer to the server."""
        return False

    @property
    def prompt_count(self) -> int:
        """Prompts in this request."""
        return 1

    def sampling(self, seed: int) -> Sampling:
        """What the engine is told for one choice."""
        return Sampling(
            temperature=self.temperature if self.temperature >= _GREEDY_BELOW else 0.0,
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

    prompt: Prompts
    logprobs: Annotated[int, Whole, Field(ge=0, le=20)] | None = None
    echo: Literal[False] = False
    best_of: Annotated[Literal[1], Whole] = 1

    @property
    def alternatives(self) -> int | None:
        """Alternatives per token to report log-probabilities for; None for no log-probabilities at all."""
        return self.logprobs

    @property
    def prompt_count(self) -> int:
        """Prompts in this request."""
        return len(self.prompt)


def decode(kind: type[Asked], document: dict[str, object]) -> Asked:
    """`document` as `kind`. Raises Refused naming the first wrong field."""
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in problem["loc"] if not _is_branch(part))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "this server does not support this field; leave it out"
        elif problem["type"] == "missing":
            message = "is required"
        named = _NAMED.match(message)
        if named and problem["type"] == "value_error":  # a validator of a whole object names the field itself
            field, message = f"{field}.{named[1]}".lstrip("."), message[named.end() :]
        raise Refused(400, f"{field[:80]}: {message}"[:280], param=field[:80]) from error


def _is_branch(part: int | str) -> bool:
    """Whether `part` of an error's location is pydantic's name of a type, not a field of the body."""
    return isinstance(part, str) and ("[" in part or part in ("str", "constrained-str", "int"))
