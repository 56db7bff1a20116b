"""Bounds of a mean of bounded values that hold at every number of items, whatever their distribution.

Gaffke's bound: the mean is written with random weights, uniform over all that sum to 1 (Dirichlet), over the values and
one more at the worst end of their range; the bound is the `level` quantile. For values 0 and 1 it is Clopper and
Pearson's exact bound. Student's t passes a variant at the margin too often where losses are rare and large, because a
sample without one of them looks certain; here the added value stands for the loss that was not seen.
(Gaffke 2005; Learned-Miller and Thomas 2019. No distribution is known for which it fails.)
"""

import math

import numpy as np

from qtool.evaluate.verdicts.statistics import Values

_STEPS = np.linspace(0.0, 7.0, 181)  # of sinh, in standard deviations of the integrand: as far as 550 of them


def lower_bound(values: Values, *, floor: float, level: float) -> float:
    """Lower bound at 1 - `level` of the mean of independent `values` [n], none of which can be below `floor`."""
    from scipy import optimize

    padded, counts = np.unique(np.append(values, floor), return_counts=True)
    highest = float(values.max())
    if len(padded) == 1:
        return floor
    scale = highest - floor

    def excess(mean: float) -> float:
        return _chance_below(padded, counts, mean) - level

    # the weighted mean lies between the floor and the largest value; the chance of being below grows with the mean
    low, high = floor + 1e-9 * scale, highest - 1e-9 * scale
    if excess(low) > 0:
        return floor
    return float(optimize.brentq(excess, low, high, xtol=1e-7 * scale)) if excess(high) > 0 else highest


def upper_bound(values: Values, *, ceiling: float, level: float) -> float:
    """Upper bound at 1 - `level` of the mean of independent `values` [n], none of which can be above `ceiling`."""
    return -lower_bound(-values, floor=-ceiling, level=level)


def _chance_below(values: Values, counts: "np.ndarray[tuple[int], np.dtype[np.int64]]", mean: float) -> float:
    """Chance that the randomly weighted mean is below `mean`.

    It is the chance that sum of e_i (mean - value_i) is positive, with exponential e_i: the integral of its moment
    generating function over s on a line through the saddle point, where the integrand neither turns nor grows.
    """
    from scipy import optimize

    slopes = mean - values  # falling: values are sorted
    left, right = 1.0 / slopes.min(), 1.0 / slopes.max()  # where the generating function ends, below and above 0

    def slope(s: float) -> float:
        return float((counts * slopes / (1.0 - s * slopes)).sum())

    inside = 1e-12
    at = float(optimize.brentq(slope, left * (1 - inside), right * (1 - inside), xtol=1e-13 * (right - left)))
    width = math.sqrt(float((counts * np.square(slopes / (1.0 - at * slopes))).sum()))
    beside = min(0.5 / width, 0.5 * right, -0.5 * left)
    if abs(at) < beside:  # the integrand has a pole at 0, and on a line close by the sum below would step over its peak
        at = math.copysign(beside, at)
    reach = np.sinh(_STEPS) / width
    line = at + 1j * reach
    logs = -(counts[:, None] * np.log(1.0 - line[None, :] * slopes[:, None])).sum(axis=0)
    heights = (np.exp(logs) / line).real * np.cosh(_STEPS) / width
    area = float(heights.sum() - heights[0] / 2) * float(_STEPS[1]) / math.pi  # the last height is nothing
    # right of the pole the integral is P(> 0), left of it -P(< 0)
    return min(1.0, max(0.0, area if at > 0 else 1.0 + area))
