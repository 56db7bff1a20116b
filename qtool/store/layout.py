"""Where everything of a run folder lies: the only module that spells the names of its files and folders."""

from dataclasses import dataclass
from pathlib import Path

# manifests: each is written last, and makes its folder a finished one
VARIANT = "variant.json"
CALIBRATION = "calibration.json"
BUNDLE = "bundle.json"
REPORT = "report.json"

REPORT_PAGE = "report.html"
REPORT_TEXT = "report.md"
PLAN = "plan.json"
PLAN_LOCK = "plan.lock.json"
STAGES = "stages.json"
SWEEP = "sweep.json"
SWEEP_TEXT = "sweep.md"
SENSITIVITY = "sensitivity.json"

# of a calibration folder
RANGES = "ranges.safetensors"
HISTOGRAMS = "histograms.safetensors"
SEQUENCES = "sequences.safetensors"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The parts of the run folder at `path`, each a path that may not be there yet."""

    path: Path

    @property
    def variants(self) -> Path:
        """The folder of all variants."""
        return self.path / "variants"

    def variant(self, name: str) -> Path:
        """The folder of variant `name`."""
        return self.variants / name

    def evaluations(self, name: str) -> Path:
        """The folder of the evaluations of variant `name`."""
        return self.path / "evaluations" / name

    @property
    def calibration(self) -> Path:
        """The folder of the run's calibration."""
        return self.path / "calibration"

    @property
    def latency(self) -> Path:
        """The folder of the timings, a few files for each variant."""
        return self.path / "latency"

    @property
    def ladders(self) -> Path:
        """The folder of what the ladders tried."""
        return self.path / "ladders"

    @property
    def bundle(self) -> Path:
        """The folder of the run's bundle."""
        return self.path / "bundle"


def run_of(variant: Path) -> RunFolder | None:
    """The run that the variant's folder lies in, None where it lies anywhere else."""
    folder = variant.resolve()
    run = RunFolder(folder.parent.parent)
    return run if run.variants == folder.parent else None


def is_model_folder(folder: Path) -> bool:
    """Whether a model or a variant lies in `folder`."""
    return any((folder / name).is_file() for name in (VARIANT, "config.json"))
