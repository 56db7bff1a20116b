"""What a user of a variant must know before its numbers: whether its calibration was too small."""

from pathlib import Path

from qtool.quantize.request.prepare import Order
from qtool.store.ranges_file import read_calibration


def notes_of(order: Order) -> tuple[str, ...]:
    """The notes of a variant made by `order`, the ones that matter most first."""
    used = order.needs.sequences or order.recipe.activations == "static"
    return calibration_notes(order.calibration, order.recipe.method, learns=order.needs.sequences) if used else ()


def calibration_notes(calibration: Path | None, method: str, *, learns: bool) -> tuple[str, ...]:
    """The certificate's doubt, where what is made depends on its data."""
    if calibration is None:
        return ()
    found = read_calibration(calibration)
    if found.verdict in ("enough", "not_assessed"):
        return ()
    said = found.verdict.replace("_", " ").upper()
    used = f"{method} learns from it" if learns else "its ranges are used"
    return (f"calibration: {said}, and {used}: {found.verdict_reason}",)
