"""One run while it is carried out: what every order of stages needs to skip what is done and to make a variant."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from qtool.progress import Progress
from qtool.records.variant import Recipe
from qtool.store.digest import file_digest
from qtool.store.layout import CALIBRATION, VARIANT, RunFolder
from qtool.store.stage_log import changed_file, is_done, mark_done


@dataclass(frozen=True, slots=True)
class Run:
    """A model, the folder that a plan, a sweep or a trial of layers works in, and what of it is done already."""

    model: Path
    weights_digest: str
    folder: Path
    progress: Progress

    @property
    def parts(self) -> RunFolder:
        """Where everything of the run lies."""
        return RunFolder(self.folder)

    def stage(
        self, name: str, inputs: object, manifest: Path, work: Callable[[], object], *, also: Iterable[Path] = ()
    ) -> None:
        """Does `work` unless `name` was done from equal `inputs` and its files are as they were; says which of the two.

        The files are those that `manifest` speaks for, and `also`.
        """
        if not self.is_done(name, inputs):
            work()
            self.mark_done(name, inputs, manifest, also=also)

    def is_done(self, name: str, inputs: object) -> bool:
        """Whether stage `name` was done from equal `inputs` and its files are as it left them; says which."""
        if is_done(self.folder, name, inputs):
            self.progress.note(f"{name}: unchanged, skipped")
            return True
        if changed := changed_file(self.folder, name, inputs):
            self.progress.note(f"{name}: {changed} is not what this stage wrote; it is made again")
        return False

    def mark_done(self, name: str, inputs: object, manifest: Path, *, also: Iterable[Path] = ()) -> None:
        """Records that stage `name` ended well and wrote `manifest` and the files that belong to it."""
        mark_done(self.folder, name, inputs, manifest, also=also)


def make(run: Run, name: str, recipe: Recipe) -> None:
    """Makes the variant `name`, unless an equal one is there."""
    from qtool.quantize.stage import quantize

    used = None if recipe.scheme == "base" else run.parts.calibration
    inputs = {
        "model": run.weights_digest,
        "recipe": recipe,
        "calibration": None if used is None else file_digest(used / CALIBRATION),
    }
    output = run.parts.variant(name)
    run.stage(
        f"quantize:{name}",
        inputs,
        output / VARIANT,
        lambda: quantize(run.model, recipe, output, name=name, calibration=used, progress=run.progress, replace=True),
    )
