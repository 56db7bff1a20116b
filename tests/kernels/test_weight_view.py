"""The weight of a quantized layer, for models whose own code multiplies by it (Mamba's dt_proj)."""

import pytest
import torch

from qtool.formats.stored_weights import dequantize
from qtool.kernels.dispatch import choose_kernel
from qtool.kernels.fused import SharedProduct, fuse
from qtool.kernels.linear import KernelLinear
from tests.kernels.test_products import make_weight


@pytest.mark.parametrize("bits", [4, 8])
def test_the_model_s_own_product_with_the_weight_is_the_layer_s(bits: int) -> None:
    weight = make_weight(48, 32, bits, -1, zeros=False)
    kernel = choose_kernel(weight, "none", device=torch.device("cpu"))
    layer = KernelLinear(kernel, rows=48, columns=32, bias=None)
    first, second = fuse(SharedProduct(kernel, columns=32, parts=2), [16, 32], 32, [None, None])
    exact = dequantize(weight).float()
    inputs = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    near = 2.0**-8 * exact.abs().max()
    for view, expected in ((layer.weight, exact), (first.weight, exact[:16]), (second.weight, exact[16:])):
        assert (view.dtype, tuple(view.shape)) == (torch.float32, tuple(expected.shape))
        assert (view.float() - expected).abs().max() <= near
        torch.testing.assert_close(view @ inputs, expected @ inputs, rtol=0.02, atol=float(32 * near))
        assert (view @ inputs.bfloat16()).dtype is torch.bfloat16


def test_a_look_at_type_and_shape_computes_nothing() -> None:
    kernel = choose_kernel(make_weight(48, 32, 8, -1, zeros=False), "none", device=torch.device("cpu"))
    layer = KernelLinear(kernel, rows=48, columns=32, bias=None)
    layer.kernel = None  # type: ignore[assignment]  # whoever asks it for numbers finds out
    assert layer.weight.dtype is torch.float32
    assert layer.weight.shape[0] == layer.weight.size(0) == 48
    assert layer.weight.device.type == "cpu"
    with pytest.raises(AttributeError):
        layer.weight @ torch.ones(32)


def test_columns_that_lie_apart_in_memory_are_multiplied_right() -> None:
    """Mamba hands its projections transposed activations."""
    weight = make_weight(48, 32, 8, -1, zeros=False)
    layer = KernelLinear(choose_kernel(weight, "none", device=torch.device("cpu")), rows=48, columns=32, bias=None)
    inputs = torch.randn(1, 32, 6, generator=torch.Generator().manual_seed(0)).transpose(1, 2)
    torch.testing.assert_close(layer(inputs), layer(inputs.contiguous()), rtol=0, atol=0)
