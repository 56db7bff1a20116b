"""Every kernel against float64: odd widths, few and many rows, zero points, column order; memory poisoned with NaN."""

from collections.abc import Iterator

import pytest
import torch

from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.kernels.contract import Activations
from qtool.kernels.cpu import int4_cpu, int8_cpu
from qtool.kernels.dense import DenseKernel
from qtool.kernels.dispatch import choose_kernel
from qtool.kernels.linear import KernelLinear
from qtool.kernels.tiles import InputQuantizer, TileKernel

CPU = torch.device("cpu")
SHAPES = ((16, 32), (64, 64), (172, 64), (64, 172), (100, 96), (256, 256), (96, 512))
# one bfloat16 rounding of an input (2^-9), one of the packed product's output (2^-9), one of a group scale (2^-9),
# relative to the sum of magnitudes, which bounds all of them
BFLOAT16_PATH = 3 * 2.0**-9
FLOAT32_PATH = 2.0**-17  # float32 sums of up to 512 products


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fresh memory holds NaN, so that a kernel that leaves or reads a cell it did not write is caught."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def make_weight(
    rows: int, columns: int, bits: int, group: int, *, zeros: bool = False, shuffled: bool = False, static: bool = False
) -> StoredWeight:
    generator = torch.Generator().manual_seed(rows * columns + bits)
    half = 1 << (bits - 1)
    groups = 1 if group == -1 else columns // group
    order = torch.randperm(columns, generator=generator) // (columns // groups) if shuffled else None
    return StoredWeight(
        codes=torch.randint(-half, half, (rows, columns), generator=generator, dtype=torch.int8),
        scales=torch.rand(rows, groups, generator=generator) * 0.01 + 0.001,
        zeros=torch.randint(-3, 4, (rows, groups), generator=generator, dtype=torch.int8) if zeros else None,
        bits=bits,
        group_size=group,
        group_of_column=order,
        input_scale=torch.tensor([0.03]) if static else None,
    )


def cases() -> list[tuple[int, int, int, int, bool, Activations]]:
    found: list[tuple[int, int, int, int, bool, Activations]] = []
    for rows, columns in SHAPES:
        for group in (-1, 32, 128):
            if group != -1 and columns % group:
                continue
            for zeros in (False, True):
                found.append((rows, columns, 4, group, zeros, "none"))
                found += [(rows, columns, 8, group, zeros, kind) for kind in ("none", "dynamic", "static")]  # type: ignore[misc]
    return found


@pytest.mark.parametrize(("rows", "columns", "bits", "group", "zeros", "activations"), cases())
def test_every_kernel_agrees_with_float64(
    rows: int, columns: int, bits: int, group: int, zeros: bool, activations: Activations
) -> None:
    weight = make_weight(rows, columns, bits, group, zeros=zeros, static=activations == "static")
    exact = dequantize(weight).double()
    for tokens in (1, 2, 7, 32, 100):
        inputs = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(tokens))
        stored = InputQuantizer(weight, activations).simulate(inputs).double()
        expected, magnitude = stored @ exact.t(), stored.abs() @ exact.abs().t()
        kernels = [choose_kernel(weight, activations, device=CPU), TileKernel(weight, activations)]
        if activations == "none" and int4_cpu.fits(weight):
            kernels.append(int4_cpu.Int4Kernel(weight, few_rows=7))
        if activations == "none" and int8_cpu.weight_fits(weight):
            kernels.append(int8_cpu.Int8WeightKernel(weight, few_rows=7))
        if activations != "none" and int8_cpu.input_fits(weight):
            kernels += [int8_cpu.Int8Kernel(weight, activations), int8_cpu.SmallInt8Kernel(weight, activations)]
        for kernel in kernels:
            exact_path = isinstance(kernel, TileKernel | int8_cpu.Int8Kernel | int8_cpu.SmallInt8Kernel)
            error = ((kernel.multiply(inputs).double() - expected).abs() / magnitude).max()
            assert error <= (FLOAT32_PATH if exact_path else BFLOAT16_PATH), (kernel.label, tokens)


def test_shuffled_columns_go_to_the_fallback_and_are_right() -> None:
    weight = make_weight(48, 128, 4, 32, shuffled=True)
    kernel = choose_kernel(weight, "none", device=CPU)
    assert isinstance(kernel, TileKernel)
    inputs = torch.randn(5, 128)
    torch.testing.assert_close(kernel.multiply(inputs), inputs @ dequantize(weight).t(), rtol=1e-4, atol=1e-5)


def test_both_paths_of_a_packed_kernel_agree() -> None:
    weight = make_weight(192, 256, 4, 64)
    inputs = torch.randn(6, 256).bfloat16().float()
    few, many = (int4_cpu.Int4Kernel(weight, few_rows=rows).multiply(inputs) for rows in (100, 0))
    assert (few - many).abs().max() <= 2 * BFLOAT16_PATH * (inputs.abs() @ dequantize(weight).abs().t()).max()


def test_float8_weights_are_multiplied_as_numbers() -> None:
    codes = torch.randn(32, 64).to(torch.float8_e4m3fn)
    weight = StoredWeight(codes, torch.full((32, 1), 0.5), None, 8, -1)
    inputs = torch.randn(3, 64)
    product = choose_kernel(weight, "none", device=CPU).multiply(inputs)
    torch.testing.assert_close(product, inputs @ (codes.float() * 0.5).t(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_has_the_type_of_the_input(dtype: torch.dtype) -> None:
    for bits, activations in ((4, "none"), (8, "none"), (8, "dynamic")):
        kernel = choose_kernel(make_weight(64, 64, bits, -1), activations, device=CPU)  # type: ignore[arg-type]
        assert kernel.multiply(torch.randn(3, 64).to(dtype)).dtype is dtype


def test_packed_weights_are_as_small_as_promised() -> None:
    rows, columns = 256, 512
    assert choose_kernel(make_weight(rows, columns, 4, 128), "none", device=CPU).bytes <= rows * columns * 0.55
    assert choose_kernel(make_weight(rows, columns, 8, -1), "none", device=CPU).bytes <= rows * columns * 1.1
    assert choose_kernel(make_weight(rows, columns, 8, -1), "dynamic", device=CPU).bytes <= rows * columns * 1.1


def test_eight_bit_sums_do_not_saturate() -> None:
    """All codes at their largest: where 16-bit sums of products overflow, the operator must not be trusted."""
    weight = StoredWeight(torch.full((16, 64), 127, dtype=torch.int8), torch.ones(16, 1), None, 8, -1)
    product = int8_cpu.Int8Kernel(weight, "dynamic").multiply(torch.ones(2, 64))
    assert torch.allclose(product, torch.full((2, 16), 127.0 * 64), rtol=1.0 / 127)


def test_the_int4_packing_order_is_learnt_here() -> None:
    order = int4_cpu.layout()
    assert order is not None
    assert sorted(order.order.tolist()) == list(range(order.block))


@pytest.mark.parametrize("shape", [(64, 64), (1024, 1056)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_dense_and_the_linear_module_around_it(shape: tuple[int, int], with_bias: bool) -> None:
    weight = torch.randn(*shape)
    bias = torch.randn(shape[0]) if with_bias else None
    layer = KernelLinear(DenseKernel(weight), rows=shape[0], columns=shape[1], bias=bias)
    inputs = torch.randn(2, 3, shape[1])
    expected = torch.nn.functional.linear(inputs.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(layer(inputs).double(), expected, rtol=1e-4, atol=1e-3)


def test_an_int8_product_never_gets_rows_that_do_not_fill_a_vector() -> None:
    """torch's operator reads past the end of such rows and crashes the process (seen with 100 columns on AVX2)."""
    kernel = int8_cpu.Int8WeightKernel(make_weight(16, 100, 8, -1), few_rows=64)
    assert kernel.multiply(torch.randn(7, 100)).isfinite().all()
    assert not int8_cpu.weight_fits(make_weight(16, 80, 8, 20))
