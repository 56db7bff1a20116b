"""SmoothQuant: makes 8-bit activations possible by moving their outliers into the weights.

What it does: divides input channels by max|x|^a / max|w|^(1-a) and multiplies weight columns by it (Xiao et al., arXiv
2211.10438). The exponent a is searched for at each place, with inputs and weights both rounded as they will be served,
and scale is moved only where that helps. Static input scales are then found anew, by the error of the outputs. Weights
are rounded with error feedback (rounding=gptq) or to nearest (rounding=rtn).

When to use it: w8a8, above all with static activations, where a single outlier channel costs every other its bits.

What it costs: ten trial roundings of each layer, and GPTQ's pass over the columns.

When it fails: on models whose norms and layers qtool cannot match up; there activations keep their outliers.
"""

from collections.abc import Iterator

from qtool.quantize.blocks.layerwise import OPTIONS, option_problems, quantize_layers
from qtool.quantize.contract import BlockWork, LayerResult, Needs
from qtool.quantize.request.recipe import choice_problem, option
from qtool.quantize.rounding.scale_search import Search, rescale_block, smooth_scales
from qtool.records.variant import Recipe

NEEDS = Needs(
    scope="block",
    schemes=("w8a8",),
    options=OPTIONS | {"rounding": "gptq (error feedback) or rtn (to nearest); default gptq"},
    sequences=True,
)

_SEARCH = Search(tuple(step / 10 for step in range(1, 10)), smooth_scales, rounds_inputs=True)


def check(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    problems = (*option_problems(recipe), *choice_problem(recipe, "rounding", "gptq", ("gptq", "rtn")))
    if recipe.activations == "static" and recipe.observer not in (None, "absmax"):
        problems += (
            f"observer: moving scale makes ranges of its own; {recipe.observer!r} cannot be used, only absmax",
        )
    return problems


def quantize(block: BlockWork) -> Iterator[LayerResult]:
    """Moves scale, then quantizes every layer of `block` in the order they run."""
    rescale_block(block, _SEARCH)
    feedback = option(block.recipe, "rounding", "gptq") == "gptq"
    yield from quantize_layers(block, method="smoothquant", feedback=feedback, own_ranges=True)
