"""Intervals and tests over items, each a thin call to SciPy, statsmodels or NumPy; nothing here knows about tasks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qtool.records.evaluation import Interval

Values = NDArray[np.float64]

_RESAMPLES = 4000
_MOST_FOR_JACKKNIFE = 10_000
_BATCH = 100  # resamples held in memory at once: 100 x 5,000 items x 8 bytes is 4 MB


def wilson(successes: int, items: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a share; never empty, also at 0 % and 100 %."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, items, alpha=1 - confidence, method="wilson")
    return Interval(float(low), float(high), confidence)


def mean_interval(values: Values, *, confidence: float = 0.95, clusters: Sequence[str] | None = None) -> Interval:
    """Student's interval of a mean; with `clusters`, items that share one are not counted as independent."""
    from scipy import stats

    if len(values) < 2:
        return Interval(float("-inf"), float("inf"), confidence)
    error, freedom = standard_error(values, clusters)
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    mean = float(values.mean())
    return Interval(mean - reach, mean + reach, confidence)


def standard_error(values: Values, clusters: Sequence[str] | None = None) -> tuple[float, int]:
    """Standard error of the mean of `values` [items] and its degrees of freedom.

    With clusters: (1/n) sqrt(C/(C-1) sum over clusters of (sum of deviations)^2), which is statsmodels' cluster-robust
    error of an intercept and inspect_ai's.
    """
    items = len(values)
    if clusters is None:
        return float(values.std(ddof=1)) / float(np.sqrt(items)), items - 1
    _, membership = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(membership, weights=values - values.mean())
    count = len(sums)
    if count < 2:
        return float("inf"), 1
    return float(np.sqrt(count / (count - 1) * np.square(sums).sum())) / items, count - 1


def bca(values: Values, *, confidence: float = 0.95, seed: int = 0) -> Interval | None:
    """Bias-corrected and accelerated bootstrap interval of a mean; None where every value is equal or too few are.

    Above 10,000 values the correction is nothing and its jackknife is slow, so plain percentiles are taken.
    """
    from scipy import stats

    if len(values) < 3 or np.ptp(values) == 0:
        return None
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        confidence_level=confidence,
        method="BCa" if len(values) <= _MOST_FOR_JACKKNIFE else "percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = float(found.low), float(found.high)
    return Interval(low, high, confidence) if np.isfinite(low) and np.isfinite(high) else None


def mcnemar_worse(harmful: int, beneficial: int) -> float:
    """Exact one-sided McNemar test: chance of so many harmful among all changed items if both were equally likely."""
    from scipy import stats

    changed = harmful + beneficial
    if changed == 0:
        return 1.0
    return float(stats.binomtest(harmful, changed, 0.5, alternative="greater").pvalue)


def permutation_worse(gains: Values, *, seed: int = 0) -> float:
    """Paired permutation test (random signs): chance of a mean gain as low as this if signs meant nothing."""
    from scipy import stats

    moved = gains[gains != 0]
    if len(moved) == 0:
        return 1.0
    if len(moved) == 1:  # two sign patterns, which SciPy refuses to count
        return 0.5 if moved[0] < 0 else 1.0
    found = stats.permutation_test(
        (moved,),
        np.mean,
        permutation_type="samples",
        alternative="less",
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's step-down adjusted p-values, in the order given."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return ()
    return tuple(float(value) for value in multipletests(p_values, method="holm")[1])
