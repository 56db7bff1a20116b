"""`qtool.calibrate`, its shards, and the sweep over observers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.front_door.paths import PathLike, optional_path
from qtool.front_door.threads import on_threads
from qtool.progress import chosen_progress
from qtool.records.calibration import Calibration
from qtool.records.plan import CalibrationSettings

if TYPE_CHECKING:
    from qtool.calibrate.passes.shards import Shard
    from qtool.records.sweep import Sweep

DEFAULT_OBSERVERS = CalibrationSettings().observers


@on_threads
def calibrate(
    model: PathLike,
    output: PathLike,
    *,
    set: str = "mixed",
    sequences: int = 128,
    sequence_tokens: int = 256,
    seed: int = 0,
    observers: Sequence[str] = (),
    traffic: str | None = None,
    chat: bool | None = None,
    sets_dir: PathLike | None = None,
    device: str = "auto",
    dtype: str = "auto",
    activation_mib: int = 2048,
    threads: int | None = None,
    quiet: bool = False,
) -> Calibration:
    """Runs a set of text through `model` and writes activation ranges and the set's certificate to the new folder
    `output`; `observers` are absmax and percentile unless others are named. Interrupted, it resumes. A model with a
    chat template is shown questions as it will be asked them, unless `chat` is false."""
    from qtool.calibrate.stage import Machine
    from qtool.calibrate.stage import calibrate as run
    from qtool.models.locate import locate

    return run(
        locate(str(model)),
        CalibrationSettings(
            set, sequences, sequence_tokens, seed, tuple(observers or DEFAULT_OBSERVERS), traffic, chat=chat
        ),
        Path(output),
        progress=chosen_progress(quiet),
        sets_dir=optional_path(sets_dir),
        machine=Machine(device, dtype, activation_mib << 20),
        source=str(model),
    )


@on_threads
def calibrate_shard(
    model: PathLike,
    output: PathLike,
    *,
    shard: str,
    set: str = "mixed",
    sequences: int = 128,
    sequence_tokens: int = 256,
    seed: int = 0,
    observers: Sequence[str] = (),
    traffic: str | None = None,
    chat: bool | None = None,
    sets_dir: PathLike | None = None,
    device: str = "auto",
    dtype: str = "auto",
    activation_mib: int = 2048,
    threads: int | None = None,
    quiet: bool = False,
) -> "Shard":
    """Part i of n of what `calibrate` does, `shard` "i/n"; `merge` joins all parts."""
    from qtool.calibrate.stage import Machine
    from qtool.calibrate.stage import calibrate_shard as run
    from qtool.models.locate import locate

    return run(
        locate(str(model)),
        CalibrationSettings(
            set, sequences, sequence_tokens, seed, tuple(observers or DEFAULT_OBSERVERS), traffic, chat=chat
        ),
        Path(output),
        shard=shard,
        progress=chosen_progress(quiet),
        sets_dir=optional_path(sets_dir),
        machine=Machine(device, dtype, activation_mib << 20),
    )


def merge(shards: Sequence[PathLike], output: PathLike) -> Calibration:
    """Joins all shards of one set to the calibration that one pass over the whole set would have given."""
    from qtool.calibrate.passes.shards import merge_shards

    return merge_shards(tuple(map(Path, shards)), Path(output))


@on_threads
def sweep(
    model: PathLike,
    output: PathLike,
    *,
    tasks: Sequence[str] = (),
    scheme: str = "w8a8",
    items: int | None = None,
    blamed: int = 3,
    set: str = "mixed",
    sequences: int = 128,
    sequence_tokens: int = 256,
    seed: int = 0,
    observers: Sequence[str] = (),
    sets_dir: PathLike | None = None,
    evals_dir: PathLike | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> "Sweep":
    """Scores every way to choose activation ranges on your tasks and names the layers that hurt."""
    from qtool.models.locate import locate
    from qtool.pipeline.sweep import OBSERVERS, SweepSettings
    from qtool.pipeline.sweep import sweep as run

    settings = SweepSettings(
        calibration=CalibrationSettings(set, sequences, sequence_tokens, seed, tuple(observers or OBSERVERS)),
        tasks=tuple(tasks),
        scheme=scheme,
        items=items,
        blamed=blamed,
    )
    return run(
        locate(str(model)),
        settings,
        Path(output),
        progress=chosen_progress(quiet),
        sets_dir=optional_path(sets_dir),
        evals_dir=optional_path(evals_dir),
    )
