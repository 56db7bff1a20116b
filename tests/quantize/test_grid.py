"""Rounding to a grid: errors bounded by half a step, the corners, and clipping that only ever helps."""

import pytest
import torch

from qtool.formats.stored_weights import dequantize
from qtool.quantize.contract import Grid
from qtool.quantize.rounding.grid import best_shrink, clipped_share, round_to_grid


def grid(bits: int = 4, group_size: int = 32, *, symmetric: bool = True, dtype: torch.dtype = torch.float32) -> Grid:
    return Grid("int", bits, group_size, symmetric, dtype)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_error_is_at_most_half_a_step(bits: int, group_size: int, symmetric: bool) -> None:
    weight = torch.randn(16, 96, generator=torch.Generator().manual_seed(0))
    stored = round_to_grid(weight, grid(bits, group_size, symmetric=symmetric))
    error = (dequantize(stored) - weight).abs().reshape(16, stored.scales.shape[1], -1)
    steps = 0.5 if symmetric else 1.0  # an asymmetric zero point is itself rounded, by up to half a step
    assert (error <= stored.scales[..., None] * steps * (1 + 1e-4)).all()  # 1e-4: 127.5 steps in float32


def test_scales_are_those_of_compressed_tensors() -> None:
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    grouped = weight.reshape(8, 2, 32)
    for symmetric in (True, False):
        arguments = QuantizationArgs(num_bits=4, symmetric=symmetric, strategy="group", group_size=32)
        scales, zeros = calculate_qparams(grouped.amin(-1), grouped.amax(-1), arguments)
        stored = round_to_grid(weight, grid(symmetric=symmetric))
        assert torch.allclose(stored.scales, scales, rtol=1e-6)
        if not symmetric:
            assert stored.zeros is not None
            assert torch.equal(stored.zeros, zeros.to(torch.int8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_zero_rows_stay_zero(dtype: torch.dtype) -> None:
    stored = round_to_grid(torch.zeros(2, 64), grid(dtype=dtype))
    assert dequantize(stored).abs().max() == 0
    assert (stored.scales > 0).all()


def test_constant_and_one_sided_groups_keep_their_value() -> None:
    for weight in (torch.full((1, 32), 0.7), torch.rand(1, 32) + 0.1):
        stored = round_to_grid(weight, grid())
        assert ((dequantize(stored) - weight).abs() <= stored.scales / 2 * (1 + 1e-5)).all()


def test_scale_that_underflows_half_precision_gives_no_nan() -> None:
    stored = round_to_grid(torch.full((1, 32), 1e-12), grid(dtype=torch.float16))
    assert torch.isfinite(dequantize(stored)).all()
    assert dequantize(stored).abs().max() < 1e-3


def test_one_outlier_costs_only_its_own_group() -> None:
    weight = torch.randn(1, 64, generator=torch.Generator().manual_seed(2))
    weight[0, 0] = 100.0
    error = (dequantize(round_to_grid(weight, grid())) - weight).abs()
    assert error[0, 32:].max() < 0.5
    assert error[0, :32].max() > 0.5


def test_clipping_never_raises_the_squared_error() -> None:
    weight = torch.randn(32, 128, generator=torch.Generator().manual_seed(3))
    full = dequantize(round_to_grid(weight, grid()))
    shrink = best_shrink(weight, grid())
    clipped = dequantize(round_to_grid(weight, grid(), shrink=shrink))
    per_group = [(q - weight).square().reshape(32, 4, 32).sum(-1) for q in (full, clipped)]
    assert (per_group[1] <= per_group[0] + 1e-9).all()
    assert per_group[1].sum() < 0.98 * per_group[0].sum()


def test_clipped_share_counts_what_lies_beyond_the_grid() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(4))
    whole, drawn_in = round_to_grid(weight, grid()), round_to_grid(weight, grid(), shrink=0.5)
    assert clipped_share(weight, whole.scales, None, grid()) == 0.0
    beyond = (weight.reshape(8, 2, 32).abs() > weight.reshape(8, 2, 32).abs().amax(-1, keepdim=True) * 0.6).float()
    assert 0 < clipped_share(weight, drawn_in.scales, None, grid()) <= float(beyond.mean()) * 1.5


def test_float8_reaches_its_largest_value() -> None:
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(5))
    stored = round_to_grid(weight, Grid("float8", 8, -1, True, torch.float32))
    assert stored.codes.dtype is torch.float8_e4m3fn
    assert stored.codes.float().abs().amax(1).tolist() == [448.0] * 4
    assert ((dequantize(stored) - weight).abs() <= weight.abs() * 2**-4 + 1e-3).all()
