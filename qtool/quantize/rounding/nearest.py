"""One layer rounded to nearest: the whole of `rtn`, and what other methods fall back to, with the reason recorded."""

from torch import Tensor

from qtool.quantize.contract import LayerResult, LayerWork
from qtool.quantize.rounding.grid import best_shrink, clipped_share, round_to_grid


def nearest(work: LayerWork, *, clip: bool = False, importance: Tensor | None = None, reason: str = "") -> LayerResult:
    """The layer's weight as it is now, each number rounded to its grid; `clip` draws the grid's ends in where that
    lowers the squared error, each column weighed by `importance`."""
    weight = work.weight()
    shrink = best_shrink(weight, work.grid, importance=importance) if clip else 1.0
    stored = round_to_grid(weight, work.grid, shrink=shrink)
    share = clipped_share(weight, stored.scales, stored.zeros, work.grid)
    return LayerResult(work.name, weight=stored, method="rtn", clipped_share=share, reason=reason)
