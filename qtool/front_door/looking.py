"""`qtool.show`, `explain`, `names`, `lint`, `data_lint`, `doctor`, `version`: what there is and what a folder holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.front_door.paths import PathLike, optional_path

if TYPE_CHECKING:
    from qtool.data.lint import Lint
    from qtool.kernels.probe import Capabilities
    from qtool.kernels.timing import KernelTime
    from qtool.records.target_lint import TargetLint
    from qtool.report.texts.folder import Described

_TOLD_PACKAGES = ("torch", "transformers", "tokenizers", "compressed-tensors", "safetensors", "numpy", "scipy")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one named thing is, as its author wrote it."""

    kind: str
    name: str
    documentation: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The machine, and how long its kernels take where that was asked for."""

    capabilities: "Capabilities"
    kernel_times: "tuple[KernelTime, ...]"


def show(folder: PathLike) -> "Described":
    """What a folder is and how it was made: `.record`, and the same as `.text`."""
    from qtool.report.texts.folder import describe

    return describe(Path(folder))


def names(kind: str | None = None) -> dict[str, dict[str, str]]:
    """Everything that can be named, by kind, with a line on each: what `qtool list` prints."""
    from qtool.front_door.naming import KINDS, descriptions, singular

    kinds = KINDS if kind is None else (singular(kind),)
    return {f"{each}s": descriptions(each) for each in kinds}


def explain(*words: str) -> tuple[Explanation, ...]:
    """What `explain("gptq")` or `explain("metric", "exact")` is: one entry for each kind that has the name."""
    from qtool.errors import UsageError
    from qtool.front_door.naming import documentation, kinds_of, singular

    if len(words) not in (1, 2):
        raise UsageError(f"explain one name at a time: qtool explain {' '.join(words[:2]) or 'NAME'}")
    wanted = words[-1]
    kinds = kinds_of(wanted) if len(words) == 1 else (singular(words[0]),)
    return tuple(Explanation(kind, wanted, documentation(kind, wanted)) for kind in kinds)


def lint(variant: PathLike, *, target: str, gpu: str | None = None) -> "TargetLint":
    """What `target` will refuse, misread or run slowly of a quantized checkpoint; `stops` where it cannot be served.

    Only headers and config.json are read. Rules on the GPU are checked where `gpu` names one.
    """
    from qtool.formats.targets.check import lint_for_target

    return lint_for_target(Path(variant), target, gpu)


def data_lint(
    set: PathLike, *, model: PathLike, evals_dir: PathLike | None = None, sets_dir: PathLike | None = None
) -> "Lint":
    """Everything that is wrong with the rows of a calibration set for a model; `errors` counts those to repair."""
    from qtool.data.lint import lint as read
    from qtool.data.lint import read_context
    from qtool.data.overlap import index_tasks
    from qtool.data.sets import load_set
    from qtool.models.locate import locate
    from qtool.models.skeleton import vocabulary_of
    from qtool.models.tokenizer import load_tokenizer

    spec = load_set(str(set), sets_dir=optional_path(sets_dir))
    folder = locate(str(model))
    tasks = index_tasks(optional_path(evals_dir))
    return read(
        spec, load_tokenizer(folder), context_tokens=read_context(folder), tasks=tasks, vocabulary=vocabulary_of(folder)
    )


def doctor(*, kernels: bool = False, size: int = 2048, compile_all: bool = False) -> Diagnosis:
    """What this machine can do, and which kernel each scheme will use; with `kernels` also how long each takes.

    `compile_all` first compiles the products of every level of instructions into the user's cache. Raises CapacityError
    where that cannot be done.
    """
    from qtool.errors import UsageError
    from qtool.kernels.probe import capabilities

    if size % 128:
        raise UsageError(f"--size {size}: must be a multiple of 128")
    if compile_all:
        from qtool.kernels.cpu.native_build import build_every_level

        build_every_level()
    found = capabilities()
    times: tuple[KernelTime, ...] = ()
    if kernels:
        import torch

        from qtool.kernels.timing import time_kernels
        from qtool.machine.device import choose_dtype

        device = torch.device(found.device)
        times = time_kernels(size, device=device, dtype=choose_dtype("auto", {"dtype": "bfloat16"}, device))
    return Diagnosis(found, times)


def version() -> dict[str, str]:
    """Versions of qtool, Python and the packages that results depend on, without importing any of them."""
    import platform
    from importlib import metadata

    from qtool import __version__

    found = {"qtool": __version__, "python": platform.python_version()}
    for name in _TOLD_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
