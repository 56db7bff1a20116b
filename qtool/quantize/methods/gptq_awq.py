"""GPTQ after AWQ: moves scale first, then rounds with error feedback.

What it does: AWQ's search for scales (arXiv 2306.00978), then GPTQ (arXiv 2210.17323) on the rescaled block. Scales
are moved, or moved half the way, where that brings GPTQ's outputs closer on held-out rows.

When to use it: 4 bits with narrow groups, when the last bit of quality is worth the time; compare it with gptq.

What it costs: the time of both.

When it fails: where GPTQ does; and where scales that suit plain rounding do not suit error feedback.
"""

from collections.abc import Iterator

from qtool.quantize.blocks.layerwise import OPTIONS, option_problems, quantize_layers
from qtool.quantize.contract import BlockWork, LayerResult, Needs
from qtool.quantize.rounding.scale_search import Search, awq_scales, rescale_block
from qtool.records.variant import Recipe

NEEDS = Needs(
    scope="block",
    schemes=("w4a16", "w8a16"),
    options=OPTIONS,
    sequences=True,
)

_SEARCH = Search(tuple(step / 20 for step in range(1, 20)), awq_scales, rounds_inputs=False, feedback=True)


def check(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return option_problems(recipe)


def quantize(block: BlockWork) -> Iterator[LayerResult]:
    """Moves scale, then quantizes every layer of `block` in the order they run."""
    rescale_block(block, _SEARCH)
    yield from quantize_layers(block, method="gptq_awq")
