"""Progress on stderr for what takes more than a second or two; stages receive it, they never create it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Shows how far a stage is. `track` yields a function to call with the number of units just finished."""

    def track(self, label: str, total: int | None, unit: str) -> contextlib.AbstractContextManager[Advance]: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Shows nothing: for tests, `--quiet` and programs."""

    @contextlib.contextmanager
    def track(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        yield lambda units: None

    def note(self, text: str) -> None:
        return None


_LINE_EVERY_S = 15.0


class RichProgress:
    """One bar a stage, with rate and time left, drawn by rich on stderr; where stderr is no terminal a plain line at
    the beginning, and another now and then that says how far it is."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)

    @contextlib.contextmanager
    def track(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn(unit),
            bars.TextColumn("{task.fields[rate]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
        )
        if not self._console.is_terminal:
            yield from self._lines(label, total, unit)
            return
        with bars.Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(label, total=total, rate="")

            def advance(units: int) -> None:
                bar.advance(task, units)
                speed = bar.tasks[task].speed
                bar.update(task, rate=f"{speed:.1f} {unit}/s" if speed else "")

            yield advance

    def _lines(self, label: str, total: int | None, unit: str) -> Iterator[Advance]:
        started = said = time.monotonic()
        self.note(label if total is None else f"{label}: {total} {unit}")
        done = 0

        def advance(units: int) -> None:
            nonlocal done, said
            done += units
            now = time.monotonic()
            if now - said < _LINE_EVERY_S or (total is not None and done >= total):
                return
            said = now
            left = "" if total is None else f", about {_duration((now - started) / done * (total - done))} left"
            self.note(f"{label}: {done}{'' if total is None else f' of {total}'} {unit}{left}")

        yield advance

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def chosen_progress(quiet: bool) -> Progress:
    """Bars on stderr, or nothing when `quiet` is set."""
    return Silent() if quiet else RichProgress()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
