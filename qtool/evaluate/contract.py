"""What passes between the stage, its scorers and its metrics: questions, answers, grades."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from qtool.engine.contract import Engine, FinishReason
from qtool.records.evaluation import Unit
from qtool.records.task import Item, TaskSpec

Direction = Literal["higher", "lower"]
AnswerKind = Literal["text", "choice", "likelihood"]
Options = Mapping[str, float | str]


class Language(Protocol):
    """Text to token ids and back, as one model does it."""

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def encode(self, text: str, *, bos: bool = True) -> tuple[int, ...]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def chat(self, message: str, *further: str) -> str:
        """`message` from a user, and `further` ones of assistant and user by turns, rendered by the model's chat
        template up to where the assistant begins, without the BOS that `encode` adds."""
        ...

    def answer_lead(self) -> str:
        """What the chat template puts between that text and the assistant's first word: nothing, or a space."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """One item ready to be asked: the text that is put to the model and a digest of all that can change its answer."""

    item: Item
    prompt: str
    digest: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one question.

    `text` is the completion up to the first stop text; `logprobs` and `margins` (nats) belong to `ids`, token by token;
    for a rolling scorer they belong to the text's own tokens and `ids` is empty. `latency_ms` counts from when the
    engine took the question up. `decided_by` says how the answer is known where it was not generated, `thinking_open`
    that the prompt already began the model's thinking; `chosen` are the choices under lm-evaluation-harness's two ways
    of weighing them, `acc` (in all) and `acc_norm` (by character).
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...]
    finish: FinishReason
    prompt_tokens: int
    latency_ms: float
    prompt_cut: bool = False
    decided_by: str = ""
    thinking_open: bool = False
    chosen: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Grade:
    """The value of one answer under a metric. `extracted` is what was compared, `parsed` whether anything could be cut
    out of the completion; `notes` say how it was wrong."""

    score: float
    extracted: str
    parsed: bool = True
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a scorer needs to ask: the engine, the model's language, the task, how many questions to keep in flight.

    `forcing` allows deciding an item without generating its answer; `seed` matters where the task samples; `chat` says
    that the prompts are turns of the chat template.
    """

    engine: Engine
    language: Language
    task: TaskSpec
    in_flight: int
    forcing: bool = False
    seed: int = 0
    chat: bool = False


class Scorer(Protocol):
    """What a module of `evaluate/scorers/` provides.

    `ANSWERS` says what its answers are: "text" that the model wrote, one "choice" of several, or the "likelihood" of
    the item's own text, which is all prompt and has no target.
    """

    ANSWERS: AnswerKind

    def ask(self, questions: Sequence[Question], context: Context) -> Iterator[tuple[int, Answer]]:
        """(index into `questions`, answer), each index once, in the order in which they finish."""
        ...


class Metric(Protocol):
    """What a module of `evaluate/metrics/` provides.

    `BINARY` metrics give 0 or 1; `DIRECTION` says which end is good; `PERFECT` is the value of a perfect answer; `UNIT`
    is "fraction" for values from 0 to 1, "perplexity" for nats a token. A module may also set `SLOW = True`, to be
    graded in threads, and have `prepare(task)` and `check(item, task)`, which raise what would make grading impossible
    before any model is loaded: of the machine, and of one item.
    """

    DIRECTION: Direction
    BINARY: bool
    PERFECT: float
    UNIT: Unit

    def grade(self, item: Item, answer: Answer, task: TaskSpec) -> Grade:
        """The value of `answer` for `item`, in the metric's own unit."""
        ...


def groups(count: int, size: int) -> Iterator[range]:
    """0 to `count` in runs of at most `size`."""
    step = max(1, size)
    return (range(start, min(start + step, count)) for start in range(0, count, step))
