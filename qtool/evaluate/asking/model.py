"""The model under evaluation: who it is, read from its folder, and its engine, opened when first needed."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from qtool.engine.contract import Engine
from qtool.errors import MismatchError
from qtool.evaluate.contract import Language
from qtool.models.locate import is_url
from qtool.models.tokenizer import has_chat_template
from qtool.progress import Progress
from qtool.records.unverified import refuse_unverified
from qtool.records.variant import Variant
from qtool.store.codec import read_json


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are obtained. All but `in_flight`, `seed`, `forcing` and the floor's share can change an answer.

    `floor_share` is the time for the noise floor as a share of the evaluation's own; 0 leaves it out. `forcing` allows
    an item to be decided in one pass where that gives the answer that would have been generated. `tokenizer` is the
    folder whose tokenizer a server's model has. `chat` is None for the model's own way: through its chat template
    where it has one. `allow_unverified` takes a variant whose verification failed.
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
    """A model folder's name and digests; where it is a quantized variant, the norm of what quantizing changed in its
    weights over their own. A `remote` one is a server's address: it has no weights here. `has_chat` says that its
    tokenizer has a chat template. `base_digest` is that of the base's weights, empty where nothing tells which base
    it is. `server` is what a remote one says of its software, empty where it says nothing."""

    folder: Path
    name: str
    weights_digest: str
    tokenizer_digest: str
    is_base: bool
    weight_error: float | None
    remote: bool = False
    has_chat: bool = False
    base_digest: str = ""
    server: str = ""


DEFAULTS = Settings()

Opener = Callable[[Path, Settings], tuple[Engine, Language]]


def identify(folder: Path, settings: Settings = DEFAULTS) -> Subject:
    """Who the model in `folder` is, from `variant.json` where it has one, or who answers where it is an address.

    Raises ModelError where it is no model, UnverifiedVariant where it was found wrong when it was made, CapacityError
    where no server answers.
    """
    if is_url(folder):
        from qtool.evaluate.asking.remote import identify_remote

        return identify_remote(folder, settings)
    manifest = folder / "variant.json"
    if manifest.is_file():
        variant = read_json(Variant, manifest)
        refuse_unverified(variant, folder, allowed=settings.allow_unverified)
        return Subject(
            folder=folder,
            name=variant.name,
            weights_digest=variant.weights_digest,
            tokenizer_digest=variant.tokenizer_digest,
            is_base=variant.recipe.scheme == "base",
            weight_error=_weight_error(variant),
            has_chat=has_chat_template(folder),
            base_digest=variant.base.weights_digest,
        )
    from qtool.models import checkpoint

    identity = checkpoint.identify(folder)
    return Subject(
        folder=folder,
        name=identity.name,
        weights_digest=identity.weights_digest,
        tokenizer_digest=identity.tokenizer_digest,
        is_base=True,
        weight_error=None,
        has_chat=has_chat_template(folder),
        base_digest="" if checkpoint.is_of_unknown_base(folder) else identity.weights_digest,
    )


def refuse_other_base(baseline: tuple[str, str], variant: tuple[str, str]) -> None:
    """Raises MismatchError where both sides, each a name and the digest of its base, are known to be of two bases."""
    (name, base), (other_name, other_base) = baseline, variant
    if base and other_base and base != other_base:
        raise MismatchError(
            f"{name} and {other_name} are of different base models (weights {base[:12]} and {other_base[:12]}); "
            "compare a variant with the base it was made from"
        )


def computed_in(subject: Subject, settings: Settings) -> str:
    """The number type the engine computes in, "auto" resolved as it is on this machine; a server's is its own."""
    if subject.remote or not (subject.folder / "config.json").is_file():
        return settings.dtype
    from qtool.machine.device import choose_device, choose_dtype
    from qtool.models.checkpoint import read_config

    found = choose_dtype(settings.dtype, read_config(subject.folder), choose_device(settings.device))
    return str(found).removeprefix("torch.")


def _weight_error(variant: Variant) -> float | None:
    """Root mean square over all weights in the ledger, those outside of the blocks apart; a layer of the blocks that
    was left as it is counts with no error."""
    layers = [layer for layer in variant.layers if layer.layer not in variant.recipe.skip]
    weights = sum(layer.rows * layer.columns for layer in layers)
    squares = sum(layer.rows * layer.columns * layer.weight_error**2 for layer in layers)
    return math.sqrt(squares / weights) if weights else None


def open_folder(folder: Path, settings: Settings) -> tuple[Engine, Language]:
    """The engine and language of the model in `folder`, or behind an address."""
    if is_url(folder):
        from qtool.evaluate.asking.remote import open_remote

        return open_remote(folder, settings)
    from qtool.engine.load import open_engine
    from qtool.evaluate.asking.language import load_language

    language = load_language(folder)
    engine = open_engine(
        folder,
        backend=settings.backend,
        dtype=settings.dtype,
        device=settings.device,
        slots=settings.in_flight,
        context_tokens=settings.context_tokens,
        frugal=True,
    )
    return engine, language


@dataclass(frozen=True, slots=True)
class SayingNotes:
    """An opener that tells, when it opens an engine, what one must know of that engine."""

    opener: Opener
    progress: Progress

    def __call__(self, folder: Path, settings: Settings) -> tuple[Engine, Language]:
        engine, language = self.opener(folder, settings)
        for note in engine.notes:
            self.progress.note(f"{folder.name}: {note}")
        return engine, language


class LazyModel:
    """Opens its engine at the first `get`, so that a run with nothing left to ask loads no model."""

    def __init__(self, folder: Path, settings: Settings, opener: Opener) -> None:
        self._folder, self._settings, self._opener = folder, settings, opener
        self._opened: tuple[Engine, Language] | None = None

    def get(self) -> tuple[Engine, Language]:
        """Engine and language, opened once."""
        if self._opened is None:
            self._opened = self._opener(self._folder, self._settings)
        return self._opened

    def language(self) -> Language:
        """The language alone: a run with nothing left to ask needs its questions and no weights."""
        opener = self._opener.opener if isinstance(self._opener, SayingNotes) else self._opener
        if self._opened is None and opener is open_folder and not is_url(self._folder):
            from qtool.evaluate.asking.language import load_language

            return load_language(self._folder)
        if self._opened is None and is_url(self._folder):
            from qtool.evaluate.asking.remote import remote_language

            return remote_language(self._folder, self._settings)
        return self.get()[1]

    @property
    def is_open(self) -> bool:
        """Whether the engine has been opened."""
        return self._opened is not None

    def close(self) -> None:
        """Frees the engine if it was opened."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None


def settled(settings: Settings, subject: Subject) -> Settings:
    """`settings` as they hold for `subject`: through its chat template where it has one and nothing else was said; a
    server is asked to generate, nothing else."""
    chat = subject.has_chat if settings.chat is None else settings.chat
    if subject.remote:
        return replace(settings, chat=chat, backend="openai", forcing=False)
    return replace(settings, chat=chat)


@contextlib.contextmanager
def lazily(folder: Path, settings: Settings, opener: Opener) -> Iterator[LazyModel]:
    """A lazy model that is closed at the end, however it ends."""
    model = LazyModel(folder, settings, opener)
    try:
        yield model
    finally:
        model.close()


class KeptOpen:
    """Opens each folder once however often it is asked for, and closes all at the end: looks alternate between two."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._opened: dict[Path, tuple[Engine, Language]] = {}

    def open(self, folder: Path, settings: Settings) -> tuple[Engine, Language]:
        """Engine and language of `folder`; closing the engine has no effect before `close`."""
        if folder not in self._opened:
            self._opened[folder] = self._opener(folder, settings)
        engine, language = self._opened[folder]
        return _Unclosed(engine), language

    def close(self) -> None:
        """Closes every engine."""
        for engine, _ in self._opened.values():
            engine.close()
        self._opened.clear()


class _Unclosed:
    """An engine whose owner closes it later."""

    def __init__(self, engine: Engine) -> None:
        self.score, self.submit, self.step = engine.score, engine.submit, engine.step
        self.abort, self.status = engine.abort, engine.status
        self.kernels, self.weight_bytes, self.cache_bytes = engine.kernels, engine.weight_bytes, engine.cache_bytes
        self.notes, self.simulated = engine.notes, engine.simulated
        self.device, self.dtype = engine.device, engine.dtype

    def close(self) -> None:
        """Nothing: the owner does it."""
