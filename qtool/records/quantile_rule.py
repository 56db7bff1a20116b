"""How many samples a quantile takes before it is shown: p50 5, p95 20, beyond that ten in the tail (p99 1,000)."""

import math

_TAIL_SAMPLES = 10  # a p99 of fewer than 1,000 samples rests on fewer than ten of them
_SMALLEST = {0.5: 5, 0.95: 20}


def samples_needed(q: float) -> int:
    """The least number of samples for quantile `q`."""
    return _SMALLEST.get(q, math.ceil(round(_TAIL_SAMPLES / (1.0 - q), 6)))
