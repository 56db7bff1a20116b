"""Opens a bundle's engine, in the engine's own process: verified, loaded, its golden prompts reproduced, warmed up."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qtool.engine.contract import Engine, GenerationRequest
from qtool.engine.drive import at_most, drive
from qtool.errors import MismatchError
from qtool.machine.threads import usable_cores
from qtool.records.bundle import Bundle
from qtool.serve.supervision.gate import kernels_beside_measured, read_bundle, reproduce, verify_files
from qtool.serve.supervision.messages import Opened
from qtool.serve.supervision.threads import candidates, fastest
from qtool.serve.supervision.wire import Opening
from qtool.store import layout
from qtool.store.digest import file_digest

_log = logging.getLogger("qtool.serve")
_LONG_PROMPT_TOKENS = 512
_WARM_UP_TOKENS = 4


def opening(folder: Path, *, slots: int, device: str, threads: int | None) -> Opening:
    """How the child opens the bundle of `folder`, whose manifest must still be the one that is there now."""
    folder = folder.resolve()
    arguments = {
        "folder": str(folder),
        "manifest_sha256": file_digest(folder / layout.BUNDLE),
        "slots": slots,
        "device": device,
        "threads": threads,
    }
    return Opening(f"{__name__}:opener", arguments)


def opener(folder: str, manifest_sha256: str, slots: int, device: str, threads: int | None) -> "BundleOpener":
    """The opener of a bundle, in the child. Raises MismatchError when the manifest was exchanged meanwhile."""
    place = Path(folder)
    if file_digest(place / layout.BUNDLE) != manifest_sha256:
        raise MismatchError(f"{place / layout.BUNDLE}: was changed since the server started; start the server again")
    return BundleOpener(place, read_bundle(place), slots, device, threads)


@dataclass(frozen=True, slots=True)
class BundleOpener:
    """Called once per life of the engine. `threads` None: as many as are fastest here."""

    folder: Path
    bundle: Bundle
    slots: int
    device: str = "auto"
    threads: int | None = None

    def __call__(self, phase: Callable[[str], None]) -> tuple[Engine, Opened]:
        """An engine that answers as it was measured. Raises QtoolError where it does not."""
        from qtool.engine.load import open_engine

        phase("verifying files")
        verify_files(self.folder, self.bundle)
        phase("loading weights")
        runtime = self.bundle.runtime
        engine = open_engine(
            self.folder,
            dtype=runtime.dtype,
            device=self.device,
            slots=self.slots,
            context_tokens=runtime.context_tokens,
        )
        phase("reproducing golden prompts")
        worst = reproduce(engine, self.bundle)
        phase("warming up")
        prompts = [golden.ids for golden in self.bundle.golden]
        threads = self._choose_threads(engine, prompts)
        slowest = warm_up(engine, prompts)
        kernels = kernels_beside_measured(engine, self.bundle)
        facts = (
            ("threads", threads),
            ("dtype", runtime.dtype),
            ("device", self.device),
            ("golden", f"{len(prompts)} prompts within {worst:.2g} nats"),
            *((("kernels", kernels),) if kernels else ()),
            *((("note", "; ".join(engine.notes)),) if engine.notes else ()),
        )
        return engine, Opened(engine.status(), facts, slowest)

    def _choose_threads(self, engine: Engine, prompts: list[tuple[int, ...]]) -> str:
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)
            return f"{self.threads} (as asked)"
        choices = candidates(usable_cores())
        if len(choices) == 1:
            torch.set_num_threads(choices[0])
            return f"{choices[0]} (all cores)"
        best, seconds = fastest(lambda: _together(engine, prompts, engine.status().slots), choices)
        measured = ", ".join(f"{count}: {time_s * 1e3:.0f} ms" for count, time_s in seconds.items())
        return f"{best} (measured: {measured})"


def warm_up(engine: Engine, prompts: list[tuple[int, ...]]) -> float:
    """Runs the engine alone, full, and with a long prompt, so that no client pays for first-time work.

    Returns the slowest step, in seconds: what the heartbeat has to bear.
    """
    status = engine.status()
    room = min(status.context_tokens - _WARM_UP_TOKENS, _LONG_PROMPT_TOKENS)
    long = (prompts[0] * (room // len(prompts[0]) + 1))[:room]
    return max(_together(engine, prompts, 1), _together(engine, prompts, status.slots), _together(engine, [long], 1))


def _together(engine: Engine, prompts: list[tuple[int, ...]], count: int) -> float:
    """Generates for `count` prompts at once; the seconds of the slowest step."""
    slowest = 0.0
    requests = [GenerationRequest(prompts[index % len(prompts)], _WARM_UP_TOKENS) for index in range(count)]
    began = time.perf_counter()
    for _ in drive(engine, requests, at_most(count)):
        slowest = max(slowest, time.perf_counter() - began)
        began = time.perf_counter()
    return slowest
