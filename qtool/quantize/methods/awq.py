"""AWQ: protects the weights that meet large inputs by giving them a finer share of the grid.

What it does: moves scale from input channels into weight columns, by the mean magnitude of each channel raised to a
power that is searched for, then rounds to nearest with the ends of each group's grid drawn in (Lin et al., arXiv
2306.00978). Every move is tried first and undone where it would change the block's output. Like gptq's, each layer
makes up for part of the drift of its inputs from the unquantized model's (option propagate; 0 is AWQ as published).

When to use it: 4 bits with little calibration data; it is less easily misled by the wrong data than GPTQ.

What it costs: 20 trial roundings of each layer; a few times the time of GPTQ on a CPU.

When it fails: on models whose norms and layers qtool cannot match up; there it is rounding with a clip.
"""

from collections.abc import Iterator

from qtool.quantize.blocks.layerwise import OPTIONS, PROPAGATE, option_problems, quantize_layers
from qtool.quantize.contract import BlockWork, LayerResult, Needs
from qtool.quantize.rounding.scale_search import Search, awq_scales, rescale_block
from qtool.records.variant import Recipe

NEEDS = Needs(
    scope="block",
    schemes=("w4a16", "w8a16"),
    options={PROPAGATE: OPTIONS[PROPAGATE]},
    sequences=True,
)

_SEARCH = Search(tuple(step / 20 for step in range(1, 20)), awq_scales, rounds_inputs=False)


def check(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return option_problems(recipe)


def quantize(block: BlockWork) -> Iterator[LayerResult]:
    """Moves scale, then rounds every layer of `block`."""
    rescale_block(block, _SEARCH)
    yield from quantize_layers(block, method="awq", feedback=False)
