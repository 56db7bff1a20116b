"""What a variant will cost, in a few lines."""

import math

from qtool.records.estimate import Estimate
from qtool.report.texts.numbers import bytes_text


def estimate_text(found: Estimate) -> str:
    """The estimate in a few lines."""
    seconds = math.ceil(60 * found.minutes)
    duration = f"{found.minutes:.1f} minutes" if seconds >= 60 else f"{seconds} second{'s' if seconds > 1 else ''}"
    return (
        f"{found.name}: {found.blocks} blocks, {found.block_seconds:.1f} s measured for the first\n"
        f"  time    about {duration}\n"
        f"  memory  at most about {bytes_text(found.peak_memory_bytes)}\n"
        f"  disk    peak {bytes_text(found.disk_bytes)} ({bytes_text(found.samples_bytes)} temporary)"
    )
