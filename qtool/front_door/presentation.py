"""Which function writes the table of which record; each is imported when a table is asked for."""

from importlib import import_module
from typing import Any

from qtool.records.bundle import Bundle
from qtool.records.calibration import Calibration
from qtool.records.estimate import Estimate
from qtool.records.latency import LatencyProfile
from qtool.records.presentation import present
from qtool.records.report import Report
from qtool.records.sweep import Sweep
from qtool.records.target_lint import TargetLint
from qtool.records.variant import Variant


def _written_by(function: str) -> Any:
    module, _, name = function.rpartition(".")

    def text(record: object) -> str:
        return str(getattr(import_module(module), name)(record))

    return text


def register() -> None:
    """Tells every main record how its table is written."""
    present(Bundle, _written_by("qtool.report.texts.folder.bundle_text"))
    present(Calibration, _written_by("qtool.report.texts.calibration_text.calibration_text"))
    present(Estimate, _written_by("qtool.report.texts.estimate_text.estimate_text"))
    present(LatencyProfile, lambda profile: str(_written_by("qtool.latency.summary.text")((profile,))))
    present(Report, _written_by("qtool.report.texts.text_table.text_table"))
    present(Sweep, _written_by("qtool.pipeline.sweep.sweep_text"))
    present(TargetLint, _written_by("qtool.report.texts.target_text.target_text"))
    present(Variant, _written_by("qtool.report.texts.variant_text.variant_text"))
