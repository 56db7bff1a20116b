"""GPTQ: rounds column by column and lets later columns make up for the errors of earlier ones.

What it does: measures the second moments of each layer's inputs on calibration tokens, rounds the columns with the
largest inputs first, and feeds every rounding error into the columns still to come (Frantar et al., arXiv 2210.17323).
Scales are fixed beforehand, so that the order leaves no trace in the format. Layers are calibrated in the order they
run, on what the layers quantized before them really give. Where there are 32 tokens for each of its columns, each makes
up for part of how far that has drifted from the unquantized model (Arai and Ichikawa, arXiv 2504.09629); those that add
to the residual stream, for part of all that the stream has drifted by.

When to use it: 4 bits, whenever there is calibration data that looks like the traffic.

What it costs: one factorization and one pass over the columns a layer; minutes on a CPU for a billion parameters.

When it fails: with far fewer tokens than columns, or on data unlike the traffic. Where the moments are singular, or
where held-out tokens say that plain rounding is better, the layer is rounded to nearest and the ledger says so.
"""

from collections.abc import Iterator

from qtool.quantize.blocks.layerwise import OPTIONS, option_problems, quantize_layers
from qtool.quantize.contract import BlockWork, LayerResult, Needs
from qtool.records.variant import Recipe

NEEDS = Needs(
    scope="block",
    schemes=("w4a16", "w8a16", "w8a8"),
    options=OPTIONS,
    sequences=True,
)


def check(recipe: Recipe) -> tuple[str, ...]:
    """What is wrong with the options of `recipe`."""
    return option_problems(recipe)


def quantize(block: BlockWork) -> Iterator[LayerResult]:
    """Quantizes every layer of `block`, in the order they run."""
    return quantize_layers(block, method="gptq")
