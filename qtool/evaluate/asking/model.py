"""The model under evaluation, in a folder or behind an address: who it is, and its engine, opened when first needed."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qtool.engine.contract import Engine, Reading, ScoreRequest
from qtool.evaluate.asking import local, remote
from qtool.evaluate.asking.language import load_language
from qtool.evaluate.asking.subject import DEFAULTS, Opener, Settings, Subject
from qtool.evaluate.contract import Language
from qtool.progress import Progress
from qtool.records.place import Place, Server


def identify(place: Place, settings: Settings = DEFAULTS) -> Subject:
    """Who the model at `place` is.

    Raises ModelError where it is no model, UnverifiedVariant where it was found wrong when it was made, CapacityError
    where no server answers.
    """
    if isinstance(place, Server):
        return remote.identify_server(place, settings)
    return local.identify_folder(place, settings)


def open_place(place: Place, settings: Settings) -> tuple[Engine, Language]:
    """The engine and language of the model at `place`."""
    if isinstance(place, Server):
        return remote.open_server(place, settings)
    return local.open_folder(place, settings)


@dataclass(frozen=True, slots=True)
class SayingNotes:
    """An opener that tells, when it opens an engine, what one must know of that engine."""

    opener: Opener
    progress: Progress

    def __call__(self, place: Place, settings: Settings) -> tuple[Engine, Language]:
        engine, language = self.opener(place, settings)
        for note in engine.notes:
            self.progress.note(f"{place.name}: {note}")
        return engine, language


class LazyModel:
    """Opens its engine at the first `get`, so that a run with nothing left to ask loads no model."""

    def __init__(self, place: Place, settings: Settings, opener: Opener) -> None:
        self._place, self._settings, self._opener = place, settings, opener
        self._opened: tuple[Engine, Language] | None = None

    def get(self) -> tuple[Engine, Language]:
        """Engine and language, opened once."""
        if self._opened is None:
            self._opened = self._opener(self._place, self._settings)
        return self._opened

    def language(self) -> Language:
        """The language alone: a run with nothing left to ask needs its questions and no weights."""
        opener = self._opener.opener if isinstance(self._opener, SayingNotes) else self._opener
        if self._opened is None and isinstance(self._place, Server):
            return remote.server_language(self._place, self._settings)
        if self._opened is None and opener is open_place and not isinstance(self._place, Server):
            return load_language(self._place)
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


@contextlib.contextmanager
def lazily(place: Place, settings: Settings, opener: Opener) -> Iterator[LazyModel]:
    """A lazy model that is closed at the end, however it ends."""
    model = LazyModel(place, settings, opener)
    try:
        yield model
    finally:
        model.close()


class KeptOpen:
    """Opens each model once however often it is asked for, and closes all at the end: looks alternate between two."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._opened: dict[Place, tuple[Engine, Language]] = {}

    def open(self, place: Place, settings: Settings) -> tuple[Engine, Language]:
        """Engine and language of the model at `place`; closing the engine has no effect before `close`."""
        if place not in self._opened:
            self._opened[place] = self._opener(place, settings)
        engine, language = self._opened[place]
        return _Unclosed(engine), language

    def close(self) -> None:
        """Closes every engine."""
        for engine, _ in self._opened.values():
            engine.close()
        self._opened.clear()


class _Unclosed:
    """An engine whose owner closes it later."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.score, self.submit, self.step = engine.score, engine.submit, engine.step
        self.abort, self.status = engine.abort, engine.status
        self.kernels, self.weight_bytes, self.cache_bytes = engine.kernels, engine.weight_bytes, engine.cache_bytes
        self.notes, self.simulated = engine.notes, engine.simulated
        self.device, self.dtype = engine.device, engine.dtype

    def read(self, request: ScoreRequest, places: Sequence[int], layers: Sequence[str]) -> Reading:
        """What the engine reads."""
        return self._engine.read(request, places, layers)

    def close(self) -> None:
        """Nothing: the owner does it."""
