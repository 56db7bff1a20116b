"""A running mean of each group's lowest and highest value; `moving_average:0.05` weighs the newest by 0.05.

What it does: starts at the first group's range and moves it towards each following group's by the weight, 0.01 by
default, in the order of the set.

When to use it: to reproduce ranges of tools that calibrate this way (torch.ao, llm-compressor).

What it costs: two numbers a group of rows, or with `moving_average:channel` two for every column of it; changing the
weight needs no second pass.

When it fails: it depends on the order of the rows, and it clips the outliers of most groups without saying how many.
"""

from typing import Literal

from qtool.calibrate.observe import Seen

NUMBER: float | None = 0.01
NUMBERS = (0.0001, 1.0)
NEEDS: Literal["bounds", "histogram", "steps"] = "steps"


def bounds(seen: Seen, number: float, symmetric: bool) -> tuple[float, float]:
    """The running means after the last group."""
    low, high = seen.steps[0]
    for next_low, next_high in seen.steps[1:]:
        low += number * (next_low - low)
        high += number * (next_high - high)
    return low, high
