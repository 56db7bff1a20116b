"""What a variant will cost, from one block that is really made: `--plan-only`."""

import tempfile
import time
from pathlib import Path

from qtool.machine.peak_memory import peak_bytes, reset_peak
from qtool.progress import Progress, Silent
from qtool.quantize.blocks.finished_parts import Parts
from qtool.quantize.blocks.sequential import quantize_blocks
from qtool.quantize.request.prepare import prepare
from qtool.quantize.stage import expected_bytes, job_of
from qtool.records.estimate import Estimate
from qtool.records.variant import Recipe


def estimate(
    model: Path, recipe: Recipe, *, name: str, calibration: Path | None, progress: Progress, device: str = "auto"
) -> Estimate | None:
    """The cost of the variant, or None for a method that does not work block by block. Writes nothing that stays."""
    order = prepare(model, recipe, name=name, calibration=calibration, progress=progress)
    if order.needs.scope != "block":
        return None
    progress.note("making one block to measure")
    reset_peak()
    started = time.monotonic()
    blocks = len(order.architecture.blocks)
    with tempfile.TemporaryDirectory(prefix="qtool-plan-") as scratch:
        parts = Parts(Path(scratch), count=blocks + 1, signature="plan only")
        quantize_blocks(job_of(order, device, Silent()), parts, blocks=1)
        seconds = time.monotonic() - started
        samples = sum(path.stat().st_size for path in Path(scratch).rglob("samples-*.safetensors"))
    size = expected_bytes(order)
    return Estimate(
        name=name,
        blocks=blocks,
        block_seconds=seconds,
        minutes=seconds * blocks / 60,
        peak_memory_bytes=peak_bytes(),
        disk_bytes=size + samples,
        samples_bytes=samples,
    )
