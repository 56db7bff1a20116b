"""SmoothQuant's search: where a single outlier channel takes the bits of all others, moving scale gives them back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qtool.formats.stored_weights import dequantize
from qtool.models.architecture import LinearLayer
from qtool.quantize.contract import BlockWork, Grid, LayerWork, Visitor
from qtool.quantize.rounding.activations import round_input
from qtool.quantize.rounding.grid import round_to_grid
from qtool.quantize.rounding.scale_search import Search, rescale_block, smooth_scales
from qtool.records.variant import Recipe

WIDTH, TOKENS, OUTLIER = 64, 1024, 100.0
SEARCH = Search(tuple(step / 10 for step in range(1, 10)), smooth_scales, rounds_inputs=True)


class Norm(nn.Module):
    """A norm's last step: channels times a weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden * self.weight


class Block(nn.Module):
    """A norm with one channel `OUTLIER` times the others', read by a layer that gives it as much less weight."""

    def __init__(self, outlier: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        channels = torch.ones(WIDTH)
        channels[5] = outlier
        self.input_layernorm = Norm(channels)
        self.q_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        weight = torch.randn(WIDTH, WIDTH, generator=generator) / channels
        self.q_proj.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.q_proj(self.input_layernorm(hidden))
        return found


class Inputs:
    """Activations of one batch of Gaussian tokens; held out are others than those learnt from."""

    def __init__(self, block: Block) -> None:
        self.block = block
        generator = torch.Generator().manual_seed(1)
        self.learnt, self.kept = (torch.randn(TOKENS, WIDTH, generator=generator) for _ in range(2))

    def visit(self, layers: Sequence[LayerWork], visitor: Visitor, *, held_out: bool = False) -> None:
        for work in layers:
            visitor(work.name, self.block.input_layernorm(self.kept if held_out else self.learnt))

    def probe(self) -> Tensor:
        return self.block(self.learnt)  # type: ignore[no-any-return]

    def base_inputs(self, layers: Sequence[LayerWork]) -> Mapping[str, list[Tensor]] | None:
        return None

    def closes_branch(self, work: LayerWork) -> bool:
        return False

    learnt_batches = 1

    def visit_missing(
        self, work: LayerWork, visitor: Callable[[Tensor, Tensor], None], *, held_out: bool = False
    ) -> None:
        raise AssertionError("there is no flow of an unquantized model here")


def relative_error(outlier: float, *, smooth: bool, static: bool) -> float:
    """Error of the layer's 8-bit outputs on held-out tokens, as a share of them."""
    block: Any = Block(outlier)
    layer = LinearLayer("q_proj", WIDTH, WIDTH, 0)
    work = LayerWork(layer, block.q_proj, Grid("int", 8, -1, True, torch.float32), "w8a8", static=static)
    inputs = Inputs(block)
    wanted = block(inputs.kept)
    if smooth:
        recipe = Recipe("w8a8", "smoothquant", activations="static" if static else "dynamic")
        rescale_block(BlockWork(block, (work,), recipe, inputs), SEARCH)
    scale = block.input_layernorm(inputs.learnt).abs().amax().reshape(1) / 127.5 if static else None
    served = round_input(block.input_layernorm(inputs.kept), float8=False, scale=scale)
    found = served @ dequantize(round_to_grid(work.weight(), work.grid)).float().t()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("static", [True, False])
def test_an_outlier_channel_no_longer_costs_the_others_their_bits(static: bool) -> None:
    """In units of the other channels, which are all one Gaussian of deviation 1, as are the weights that meet them.

    One static scale: the outlier's largest of 1024 is at least 300, so a step is at least 300 / 127.5 = 2.35 and all
    within 1.18 becomes 0. That loses E[x^2; |x| < 1.18] = 0.29 of the others' square: an error of at least 0.54.
    A scale a token: a step is 100 |x| / 127.5 for the outlier's x. From tokens with |x| < 1 alone, where no step is
    wider than a deviation, comes E[0.61 x^2 / 12; |x| < 1] = 0.010: an error of at least 0.1.
    Balanced, the largest of all inputs is near 4.5 and that of a row of weights near 3.5: 1.02 % and 0.79 %. Exponents
    are tried in steps of a tenth and 100^0.1 = 1.6, of which the best is off by half: twice the sum is enough.
    """
    plain, smoothed = (relative_error(OUTLIER, smooth=smooth, static=static) for smooth in (False, True))
    balanced = ((4.5 / 127.5) ** 2 / 12 + (3.5 / 127.5) ** 2 / 12) ** 0.5
    assert plain > (0.5 if static else 0.1)
    assert smoothed < 2 * balanced


def test_without_an_outlier_nothing_is_lost() -> None:
    plain, smoothed = (relative_error(1.0, smooth=smooth, static=True) for smooth in (False, True))
    assert smoothed < 1.02 * plain  # chosen on other tokens than these: by chance a little worse at most
