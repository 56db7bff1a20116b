"""Who is asked and how: the records that every step of an evaluation hands on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from qtool.engine.contract import Engine
from qtool.errors import MismatchError
from qtool.evaluate.contract import Language
from qtool.records.place import Place, Server


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are obtained. All but `in_flight`, `seed`, `forcing` and the floor's share can change an answer.

    `floor_share` is the time for noise floor and forecast as a share of the evaluation's own; 0 leaves both out.
    `forcing` allows an item to be decided in one pass where that gives the answer that would have been generated.
    `tokenizer` is the folder whose tokenizer a server's model has. `chat` is None for the model's own way: through its
    chat template where it has one. `allow_unverified` takes a variant whose verification failed.
    """

    chat: bool | None = None
    backend: str = "qtool"
    dtype: str = "auto"
    device: str = "auto"
    context_tokens: int | None = None
    in_flight: int = 32
    seed: int = 0
    floor_share: float = 0.2
    forcing: bool = True
    tokenizer: Path | None = None
    allow_unverified: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """A model's name and digests; where it is a quantized variant, the norm of what quantizing changed in its weights
    over their own. `has_chat` says that its tokenizer has a chat template. `base_digest` is that of the base's weights,
    empty where nothing tells which base it is. `server` is what a server says of its software, empty where it says
    nothing; `server_template` whether its chat template is that of the tokenizer; `context_tokens` the longest
    context it states."""

    place: Place
    name: str
    weights_digest: str
    tokenizer_digest: str
    is_base: bool
    weight_error: float | None
    has_chat: bool = False
    base_digest: str = ""
    server: str = ""
    server_template: Literal["", "same", "other", "not told"] = ""
    context_tokens: int | None = None

    @property
    def remote(self) -> bool:
        """Whether a server answers: its weights are not here."""
        return isinstance(self.place, Server)


DEFAULTS = Settings()

Opener = Callable[[Place, Settings], tuple[Engine, Language]]


def refuse_other_base(baseline: tuple[str, str], variant: tuple[str, str]) -> None:
    """Raises MismatchError where both sides, each a name and the digest of its base, are known to be of two bases."""
    (name, base), (other_name, other_base) = baseline, variant
    if base and other_base and base != other_base:
        raise MismatchError(
            f"{name} and {other_name} are of different base models (weights {base[:12]} and {other_base[:12]}); "
            "compare a variant with the base it was made from"
        )


def settled(settings: Settings, subject: Subject) -> Settings:
    """`settings` as they hold for `subject`: through its chat template where it has one and nothing else was said; a
    server is asked to generate, nothing else."""
    chat = subject.has_chat if settings.chat is None else settings.chat
    if subject.remote:
        return replace(settings, chat=chat, backend="openai", forcing=False)
    return replace(settings, chat=chat)
