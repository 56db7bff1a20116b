"""Makes the variant of a bundle again from the bundle's own plan lock, and compares it tensor by tensor."""

import platform
import tempfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from qtool import __version__
from qtool.errors import StoreError
from qtool.progress import Progress
from qtool.records.bundle import Bundle
from qtool.records.calibration import Calibration
from qtool.records.plan_lock import PlanLock
from qtool.records.presentation import Presented
from qtool.records.variant import Variant
from qtool.store import layout
from qtool.store.codec import read_json


@dataclass(frozen=True, slots=True)
class Moved:
    """One input that is not what it was when the bundle was made."""

    what: str
    then: str
    now: str


@dataclass(frozen=True, slots=True, repr=False)
class Reproduction(Presented):
    """What came of making a variant again. `tensors` were compared, `differing` of them have other bytes."""

    SHOWN: ClassVar[tuple[str, ...]] = ("bundle", "reproduced", "differing")

    bundle: str
    reproduced: bool
    tensors: int
    differing: tuple[str, ...]
    moved: tuple[Moved, ...]

    def table(self) -> str:
        """Whether it was reproduced, and which input moved."""
        if self.reproduced:
            lines = [f"{self.bundle}: reproduced, {self.tensors} tensors with the same bytes"]
        elif self.tensors:
            shown = ", ".join(self.differing[:3])
            lines = [f"{self.bundle}: {len(self.differing)} of {self.tensors} tensors differ, first {shown}"]
        else:
            lines = [f"{self.bundle}: not made again: it would be of another model"]
        lines += [f"  moved: {moved.what}: {moved.then} then, {moved.now} now" for moved in self.moved]
        if not self.reproduced and not self.moved:
            lines.append("  no recorded input moved: the processor, or its number of threads, computes otherwise")
        return "\n".join(lines)


def reproduce(
    bundle: Path, *, model: str | None, sets_dir: Path | None, progress: Progress, threads: int
) -> Reproduction:
    """Calibrates and quantizes as the plan lock in `bundle` says, in a folder that is gone afterwards.

    Raises StoreError for a bundle without a lock. Nothing is made where the base has other weights.
    """
    from qtool.models.identity import identify
    from qtool.models.locate import locate
    from qtool.quantize.stage import quantize

    manifest = read_json(Bundle, bundle / layout.BUNDLE)
    if not (bundle / layout.PLAN_LOCK).is_file():
        raise StoreError(f"{bundle}: has no {layout.PLAN_LOCK}: it was bundled from no plan, or by an older qtool")
    lock, made = read_json(PlanLock, bundle / layout.PLAN_LOCK), manifest.variant
    base = locate(model or lock.plan.base)
    identity = identify(base, source=lock.plan.base)
    moved = [
        Moved(what, then[:12], now[:12])
        for what, then, now in (
            ("weights of the base", made.base.weights_digest, identity.weights_digest),
            ("tokenizer of the base", made.base.tokenizer_digest, identity.tokenizer_digest),
        )
        if then != now
    ]
    if made.base.weights_digest != identity.weights_digest:
        return Reproduction(manifest.name, False, 0, (), tuple(moved))
    moved += _moved_versions(lock)
    if made.threads not in (None, threads):
        moved.append(Moved("threads", str(made.threads), str(threads)))
    with tempfile.TemporaryDirectory(prefix="qtool-reproduce-") as place:
        folder = layout.RunFolder(Path(place))
        calibration = None
        if made.calibration_digest is not None:
            calibration = folder.calibration
            moved += _calibrate(base, lock, folder.calibration, bundle, sets_dir=sets_dir, progress=progress)
        target = folder.variant(made.name)
        # its bytes are compared here, with all of what was verified then
        quantize(
            base, made.recipe, target, name=made.name, calibration=calibration, progress=progress, whole_check=False
        )
        return _compared(manifest.name, made, bundle, target, moved)


def _moved_versions(lock: PlanLock) -> list[Moved]:
    found = []
    for name, then in lock.versions:
        known = {"qtool": __version__, "python": platform.python_version()}
        now = known[name] if name in known else metadata.version(name)
        if now != then:
            found.append(Moved(name, then, now))
    return found


def _calibrate(
    base: Path, lock: PlanLock, output: Path, bundle: Path, *, sets_dir: Path | None, progress: Progress
) -> list[Moved]:
    """Calibrates anew; what of the set is no longer as it was."""
    from qtool.calibrate.stage import calibrate

    settings = lock.plan.calibration
    if settings.chat is None:
        settings = replace(settings, chat=lock.plan.chat)
    new = calibrate(base, settings, output, progress=progress, sets_dir=sets_dir)
    kept = layout.RunFolder(bundle).calibration / layout.CALIBRATION
    if not kept.is_file():
        return []
    old = read_json(Calibration, kept)
    if old.set_digest == new.set_digest:
        return []
    return [Moved(f"calibration set {settings.set}", old.set_digest[:12], new.set_digest[:12])]


def _compared(name: str, made: Variant, bundle: Path, target: Path, moved: list[Moved]) -> Reproduction:
    from qtool.formats.safetensors_header import tensor_digests

    old, new = tensor_digests(bundle), tensor_digests(target)
    differing = tuple(sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name)))
    again = read_json(Variant, target / layout.VARIANT)
    same = not differing and again.weights_digest == made.weights_digest
    if not differing and not same:
        differing = ("config.json",)
    return Reproduction(name, same, len(old), differing, tuple(moved))
