"""Whether live traffic still looks like what the variant was calibrated on, layer by layer.

The histograms of the calibration come with the bundle. What goes into some of the same layers is counted for a share of
the requests, and the two are compared in two numbers: the population stability index (PSI) over parts that each held a
twentieth of the calibrated values, and the share of values outside the calibrated range.
"""

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.records.bundle import Bundle
from qtool.records.histogram import BINS, FINITE, MAGNITUDES, Histogram, clipped_share, edges
from qtool.serve.watching.metrics import Metrics
from qtool.store import layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_log = logging.getLogger("qtool.serve")
_PARTS = 20
_LAYERS = 8
_FLOOR = 1e-4  # share that an empty part counts as: PSI would be infinite
_RESCALING = ("awq", "smoothquant", "gptq_awq")  # they divide layer inputs by scales, so these have another shape
_OFFENDERS = 5


@dataclass(frozen=True, slots=True)
class Alarm:
    """When traffic counts as drifted: over the last `requests` looked at, of at least `tokens` tokens, a layer's PSI is
    above `psi` (0.25 is the usual border of a large shift), or its clip ratio above the calibrated one by `clip`."""

    requests: int = 500
    tokens: int = 2000
    psi: float = 0.25
    clip: float = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """One layer's input as calibration saw it: the part of each bin, the share of each part, the bins outside the range
    and the share that was outside already then."""

    layer: str
    part: "NDArray[np.int64]"
    shares: "NDArray[np.float64]"
    outside: "NDArray[np.bool_]"
    clip_ratio: float


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    request_id: str
    tokens: int
    parts: "NDArray[np.float64]"  # [layers, parts]
    outside: "NDArray[np.float64]"  # [layers]


def calibrated_layers(folder: Path, bundle: Bundle) -> tuple[Calibrated, ...]:
    """Up to eight inputs, spread over the depth of the model; none where the bundle has no calibration, or where the
    method changed what goes into the layers."""
    from qtool.store.layout import HISTOGRAMS
    from qtool.store.ranges_file import read_calibration, read_histograms, read_ranges, stored_inputs

    place, recipe = layout.RunFolder(folder).calibration, bundle.variant.recipe
    if not (place / HISTOGRAMS).is_file() or recipe.method in _RESCALING:
        return ()
    histograms = read_histograms(place)
    names = [name for name in stored_inputs(place) if name in histograms and histograms[name].values]
    if len(names) > _LAYERS:
        names = [names[round(number * (len(names) - 1) / (_LAYERS - 1))] for number in range(_LAYERS)]
    observers = read_calibration(place).observers
    observer = recipe.observer if recipe.observer in observers else observers[0]
    ranges = read_ranges(place, observer)
    return tuple(calibrated(name, histograms[name], ranges[name].low, ranges[name].high) for name in names)


def calibrated(layer: str, histogram: Histogram, low: float, high: float) -> Calibrated:
    """The parts of one histogram: each has as near to a twentieth of its values as whole bins allow."""
    import numpy as np

    # bins from the most negative value to the most positive one
    order = np.concatenate([np.arange(MAGNITUDES + FINITE - 1, MAGNITUDES - 1, -1), np.arange(FINITE)])
    below = np.cumsum(histogram.counts[order]) - histogram.counts[order] / 2
    part = np.full(BINS, _PARTS - 1, dtype=np.int64)  # infinity and NaN count as the largest
    part[order] = np.minimum((below / histogram.values * _PARTS).astype(np.int64), _PARTS - 1)
    shares = np.bincount(part[order], weights=histogram.counts[order], minlength=_PARTS) / histogram.values
    lower = edges()[:-1]
    outside = np.ones(BINS, dtype=np.bool_)
    outside[:FINITE] = lower > high
    outside[MAGNITUDES : MAGNITUDES + FINITE] = lower > -low
    return Calibrated(layer, part, shares, outside, clipped_share(histogram, low, high))


class Drift:
    """The running comparison of one variant."""

    def __init__(self, layers: Sequence[Calibrated], metrics: Metrics, alarm: Alarm | None = None) -> None:
        self.layers = tuple(layers)
        self.alarmed: tuple[str, ...] = ()
        self._metrics = metrics
        self._alarm = alarm or Alarm()
        self._seen: deque[_Seen] = deque()

    @property
    def names(self) -> tuple[str, ...]:
        """The layers that are watched."""
        return tuple(layer.layer for layer in self.layers)

    def add(self, request_id: str, tokens: int, inputs: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> None:
        """What a request of so many tokens sent into the layers: bins and their counts."""
        import numpy as np

        found = {name: (np.array(bins, dtype=np.int64), np.array(counts)) for name, bins, counts in inputs}
        parts = np.zeros((len(self.layers), _PARTS))
        outside = np.zeros(len(self.layers))
        for row, layer in enumerate(self.layers):
            if layer.layer in found:
                bins, counts = found[layer.layer]
                parts[row] = np.bincount(layer.part[bins], weights=counts, minlength=_PARTS)
                outside[row] = counts[layer.outside[bins]].sum()
        self._seen.append(_Seen(request_id, tokens, parts, outside))
        if len(self._seen) > self._alarm.requests:
            self._seen.popleft()
        self._judge()

    def body(self) -> dict[str, object]:
        """What /admin/quality tells."""
        psi, clip = self._numbers(self._seen)
        layers = {
            layer.layer: {"psi": psi[row], "clip_ratio": clip[row], "calibrated_clip_ratio": layer.clip_ratio}
            for row, layer in enumerate(self.layers)
        }
        return {
            "alarm": list(self.alarmed),
            "requests": len(self._seen),
            "tokens": sum(seen.tokens for seen in self._seen),
            "layers": layers,
            "offending": self._offenders(),
        }

    def _judge(self) -> None:
        psi, clip = self._numbers(self._seen)
        alarm = self._alarm
        enough = sum(seen.tokens for seen in self._seen) >= alarm.tokens
        drifted = tuple(
            layer.layer
            for row, layer in enumerate(self.layers)
            if enough and (psi[row] > alarm.psi or clip[row] > layer.clip_ratio + alarm.clip)
        )
        for row, layer in enumerate(self.layers):
            self._metrics.drifting(layer.layer, psi[row], clip[row])
        self._metrics.drift_alarm(bool(drifted))
        if drifted and not self.alarmed:
            worst = max(range(len(psi)), key=lambda row: psi[row])
            _log.warning(
                "traffic has left what was calibrated: %d of %d layers, worst %s, PSI %.2f; see /admin/quality",
                len(drifted),
                len(self.layers),
                self.layers[worst].layer,
                psi[worst],
                extra={"fields": {"offending": [entry["request"] for entry in self._offenders()]}},
            )
        self.alarmed = drifted

    def _numbers(self, seen: "Sequence[_Seen] | deque[_Seen]") -> tuple[list[float], list[float]]:
        """PSI and clip ratio of each layer over `seen`."""
        import numpy as np

        if not seen:
            return [0.0] * len(self.layers), [0.0] * len(self.layers)
        parts = np.sum([each.parts for each in seen], axis=0)
        outside = np.sum([each.outside for each in seen], axis=0)
        values = np.maximum(parts.sum(axis=1), 1.0)
        psi = []
        for row, layer in enumerate(self.layers):
            live = np.maximum(parts[row] / values[row], _FLOOR)
            before = np.maximum(layer.shares, _FLOOR)
            psi.append(float(((live - before) * np.log(live / before)).sum()) if parts[row].any() else 0.0)
        return psi, [float(share) for share in outside / values]

    def _offenders(self) -> list[dict[str, object]]:
        """The requests that are farthest from the calibration, by the mean PSI of their own layers."""
        numbers = [(self._numbers([each]), each) for each in self._seen]
        means = [(math.fsum(psi) / max(len(psi), 1), max(clip, default=0.0), each) for (psi, clip), each in numbers]
        means.sort(key=lambda entry: entry[0], reverse=True)
        return [{"request": each.request_id, "psi": psi, "clip_ratio": clip} for psi, clip, each in means[:_OFFENDERS]]
