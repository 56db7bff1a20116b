"""What every engine does: token ids in, token ids out. Text, templates and HTTP live elsewhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "abort", "error"]
Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 is greedy: of the rest only the penalties have an effect then.

    Penalties as vLLM defines them: repetition counts prompt and output, presence and frequency the output only.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue. `stop_ids` end it and are not part of the output; `stop` are strings searched in the
    decoded output, across token borders: the tokens that complete one are part of the output, so its text must be cut
    (`qtool.engine.scheduling.stop.cut_at_stop`). `logprobs` asks for that many alternatives a token (0: chosen token
    only).
    `grammar` (of `qtool.engine.grammar`) leaves only tokens that keep the output in its form."""

    ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling = Sampling()
    stop_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One new token of request `request`, or its end. `token` is None on an event that only ends it.

    `time_s` is a monotonic clock reading when the token was known. `error` explains finish == "error".
    """

    request: int
    token: int | None
    logprob: float | None
    time_s: float
    finish: FinishReason | None = None
    error: str | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished request: `ids` without the stop token, when it was submitted and when each token was known (seconds
    on a monotonic clock), and the log-probability of each token."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: FinishReason
    submitted_s: float
    token_times_s: tuple[float, ...] = field(repr=False)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A prompt and a continuation to be given its log-likelihood."""

    ids: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probability of each continuation token (nats), whether each is the argmax, and each one's margin:
    log-probability minus the best other token's."""

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What one teacher-forced pass shows: whole log-probabilities float32 [places, vocabulary], and how often each bin
    of records/histogram.py occurred in the inputs of some layers, int64 [BINS] by name."""

    logprobs: "NDArray[np.float32]"
    inputs: "tuple[tuple[str, NDArray[np.int64]], ...]" = ()


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Counts for the server and the tests: after any storm `running` and `waiting` return to 0, `slots_free` to all.

    `kept_tokens` of `room_tokens` have their keys and values in memory or set aside; of `prompt_tokens` so far
    `reused_tokens` had theirs from an earlier prompt.
    """

    running: int
    waiting: int
    slots_free: int
    slots: int
    context_tokens: int
    vocabulary: int
    kept_tokens: int = 0
    room_tokens: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a backend opens a model: `slots` sequences at once, each of `context_tokens` (None: what fits).

    `encode` is for a remote server that answers in text alone. `frugal` keeps the memory of keys and values small
    beside the weights: with long requests fewer of them then run at once.
    """

    dtype: str = "auto"
    device: str = "auto"
    slots: int = 32
    context_tokens: int | None = None
    encode: Encode | None = None
    frugal: bool = False


class Engine(Protocol):
    """A model that is ready to answer. Not thread-safe: one thread owns it.

    `read` is for the few requests that are looked at twice: whole distributions before the tokens of the continuation
    at `places`, and histograms of what goes into `layers`; layers that the model does not have are left out.
    `submit` validates and raises RequestError for that request alone; `step` advances every running request by at most
    one token and never raises for what a request contains. `kernels` are the layers with the product each runs on,
    `simulated` says that some have none here and their times mean nothing, `notes` what a user must know of how it
    runs; a remote engine's weights and cache lie elsewhere: 0 bytes.
    """

    @property
    def kernels(self) -> tuple[tuple[str, str], ...]: ...

    @property
    def weight_bytes(self) -> int: ...

    @property
    def cache_bytes(self) -> int: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def simulated(self) -> bool: ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scored]: ...

    def read(self, request: ScoreRequest, places: Sequence[int], layers: Sequence[str]) -> Reading: ...

    def submit(self, request: GenerationRequest) -> int: ...

    def step(self) -> list[TokenEvent]: ...

    def abort(self, request: int) -> None: ...

    def status(self) -> EngineStatus: ...

    def close(self) -> None: ...
