"""Which tasks are fragile, foretold from the baseline's margins and from how rounding its weights moves them.

An answer changes when noise overturns one of its tokens. What the noise is like was measured on a few items
(`rounding.py`): its size grows with the margin, s(m)^2 = a + b m^2, and its standardized values have a shape of their
own, skewed since rounding shrinks margins. A token of margin m is therefore lost with the share of measured
standardized changes that reach -m / s(m), and an answer survives if each token does. A variant's noise is the measured
one, times its weight error over that of the rounding, since small changes of logits are linear in those of weights.
Nothing is fitted across models. benchmarks/forecast.py measures how wrong it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtool.records.evaluation import Forecast, Interval, ItemResult
from qtool.records.rounding_noise import RoundingNoise

_FEWEST = 10
_RESAMPLES = 100
_SMALLEST = 1e-9

Pairs = NDArray[np.float64]  # [tokens, 2]: margin before and after, in nats


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """Noise on a margin m: size sqrt(constant + slope m^2), and its standardized values, negated and in order."""

    constant: float
    slope: float
    losses: NDArray[np.float64]

    def lost(self, margins: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
        """Chance that each margin is overturned by this noise times `scale`."""
        size = np.sqrt(self.constant + self.slope * np.square(margins)) * scale + _SMALLEST
        chances: NDArray[np.float64] = 1.0 - np.searchsorted(self.losses, margins / size) / len(self.losses)
        return chances


def shape_of(pairs: Pairs) -> Shape:
    """The noise in measured `pairs`; weighted least squares that cannot give a negative variance."""
    from scipy import optimize

    before, change = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    weight = 1.0 / (1.0 + np.square(before))  # a large margin's change says little about where answers are lost
    design = np.stack([weight, np.square(before) * weight], axis=1)
    (constant, slope), _ = optimize.nnls(design, np.square(change) * weight)
    size = np.sqrt(constant + slope * np.square(before)) + _SMALLEST
    return Shape(float(constant), float(slope), np.sort(-change / size))


def foretell(
    rows: Sequence[ItemResult],
    noise: RoundingNoise | None,
    *,
    weight_error: float | None = None,
    after: Sequence[ItemResult] = (),
    measured: float | None = None,
) -> Forecast | None:
    """Share of answers expected to change, or None where margins or the noise on them are not known.

    `weight_error` is the variant's, that of the rounding itself if None. `after` are the variant's answers to the same
    items and `measured` the share that changed, for the side-by-side.
    """
    margins = [np.array(row.margins) for row in rows if row.margins]
    if noise is None or len(noise.margins) < _FEWEST or len(margins) < _FEWEST:
        return None
    probed = [np.array(item) for item in noise.margins if item]
    scale = 1.0 if weight_error is None or not noise.weight_error else weight_error / noise.weight_error
    together = np.concatenate(probed)
    smallest = np.array([each.min() for each in margins])
    return Forecast(
        noise_nats=float(np.sqrt(np.square(together[:, 1] - together[:, 0]).mean())) * scale,
        margin_p05_nats=float(np.quantile(smallest, 0.05)),
        predicted=float(_changes(margins, shape_of(together), scale).mean()),
        measured=measured,
        items=len(margins),
        measured_noise_nats=margin_noise(rows, after),
        interval=_interval(margins, probed, scale),
        weight_error=noise.weight_error * scale,
    )


def margin_noise(before: Sequence[ItemResult], after: Sequence[ItemResult]) -> float | None:
    """Root mean square change of a margin, in nats, over tokens with the same prefix in both models' answers.

    Where the two part, the variant prefers its own token by its margin, and the baseline's is at most that far below:
    the change there is at least the sum of both margins.
    """
    changes = []
    for old, new in zip(before, after, strict=False):
        for left, right, old_margin, new_margin in zip(
            old.output_ids, new.output_ids, old.margins, new.margins, strict=False
        ):
            if left != right:
                changes.append(old_margin + new_margin)
                break
            changes.append(new_margin - old_margin)
    return math.sqrt(math.fsum(change**2 for change in changes) / len(changes)) if changes else None


def _changes(margins: Sequence[NDArray[np.float64]], shape: Shape, scale: float) -> NDArray[np.float64]:
    """Chance that each answer changes."""
    kept = np.log1p(-np.minimum(shape.lost(np.concatenate(margins), scale), 1 - 1e-12))
    starts = np.cumsum([0, *(len(each) for each in margins[:-1])])
    changed: NDArray[np.float64] = -np.expm1(np.add.reduceat(kept, starts))
    return changed


def _interval(margins: Sequence[NDArray[np.float64]], probed: Sequence[Pairs], scale: float) -> Interval:
    """What other items to measure the noise on, and other items to ask, would have given in 95 of 100 cases."""
    rng = np.random.default_rng(0)
    means = []
    for _ in range(_RESAMPLES):
        drawn = np.concatenate([probed[index] for index in rng.integers(len(probed), size=len(probed))])
        changed = _changes(margins, shape_of(drawn), scale)
        means.append(rng.binomial(len(changed), float(changed.mean())) / len(changed))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high))
