"""Quantiles of times, each with an interval that assumes nothing about their distribution."""

import math
from collections.abc import Sequence

from qtool.records.evaluation import Interval
from qtool.records.latency import Quantile
from qtool.records.quantile_rule import samples_needed

QUANTILES = (0.5, 0.95, 0.99)
_CONFIDENCE = 0.95


def quantile(samples_ms: Sequence[float], q: float) -> Quantile:
    """Quantile `q` of the times, or None for its value where they are too few; its interval is None where the sample
    is too small to have one."""
    needed, count = samples_needed(q), len(samples_ms)
    if count < needed:
        return Quantile(q, None, None, count, needed)
    import numpy
    from scipy import stats

    value = float(numpy.quantile(samples_ms, q))
    bounds = stats.quantile_test(samples_ms, q=value, p=q).confidence_interval(_CONFIDENCE)
    interval = None
    if math.isfinite(bounds.low) and math.isfinite(bounds.high):
        interval = Interval(float(bounds.low), float(bounds.high), _CONFIDENCE)
    return Quantile(q, value, interval, count, needed)


def quantiles(samples_ms: Sequence[float]) -> tuple[Quantile, ...]:
    """p50, p95 and p99."""
    return tuple(quantile(samples_ms, q) for q in QUANTILES)
