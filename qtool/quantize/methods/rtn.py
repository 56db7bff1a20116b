"""Round to nearest: each weight becomes the nearest number of its group's grid.

What it does: scales every group of weights by its largest value and rounds. With the option clip=mse the ends of the
grid are drawn in where that lowers the squared error of the group.

When to use it: for 8 bits, where it is hard to tell from anything better; at 4 bits as the yardstick for the others.

What it costs: seconds, no data, the memory of one block. clip=mse tries 13 grids for each group.

When it fails: at 4 bits with wide groups, on small models, and wherever a few weights are much larger than the rest of
their group.
"""

from collections.abc import Iterator
from dataclasses import replace

from qtool.quantize.contract import BlockWork, LayerResult, Needs
from qtool.quantize.request.recipe import choice_problem, option
from qtool.quantize.rounding.nearest import nearest
from qtool.records.variant import Recipe

NEEDS = Needs(
    scope="block",
    schemes=("w4a16", "w8a16", "w8a8", "fp8"),
    options={"clip": "none (full range) or mse (least squared error); default none"},
)


def check(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return choice_problem(recipe, "clip", "none", ("none", "mse"))


def quantize(block: BlockWork) -> Iterator[LayerResult]:
    """Rounds every layer of `block`."""
    clip = option(block.recipe, "clip", "none") == "mse"
    for work in block.layers:
        yield replace(nearest(work, clip=clip), method="rtn")
