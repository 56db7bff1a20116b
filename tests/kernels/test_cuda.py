"""The CUDA kernels' arithmetic without a GPU: torch's operators where a CPU has them, else what is documented.

On a machine with a GPU `make gpu-check` runs the operators themselves.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from qtool.formats.stored_weights import dequantize
from qtool.kernels.contract import QuantizedWeight
from qtool.kernels.gpu import cuda
from qtool.kernels.tiles import InputQuantizer

ROWS = (1, 2, 7, 17, 32, 100)


def weight(rows: int, columns: int, bits: int, group: int, *, zeros: bool = False, seed: int = 0) -> QuantizedWeight:
    stream = torch.Generator().manual_seed(seed)
    half, groups = 1 << (bits - 1), 1 if group == -1 else columns // group
    codes = torch.randint(-half, half, (rows, columns), generator=stream, dtype=torch.int8)
    scales = (torch.rand(rows, groups, generator=stream) * 0.01 + 0.001).bfloat16().float()
    offsets = torch.randint(-half, half, (rows, groups), generator=stream, dtype=torch.int8) if zeros else None
    return QuantizedWeight(codes, scales, offsets, bits, group)


def relative_error(product: Tensor, expected: Tensor) -> float:
    return float((product.double() - expected).norm() / expected.norm())


def documented_int4(inputs: Tensor, pairs: Tensor, group: int, scales_and_zeros: Tensor) -> Tensor:
    """int4mm.cu in words: bfloat16 contiguous inputs, high half first, (code - 8) * scale + zero for each group."""
    assert inputs.dtype is scales_and_zeros.dtype is torch.bfloat16
    assert inputs.is_contiguous()
    assert scales_and_zeros.is_contiguous()
    assert group in (32, 64, 128, 256)
    codes = torch.stack((pairs >> 4, pairs & 15), -1).flatten(1).double() - 8
    scales, zeros = (part.t().double().repeat_interleave(group, 1) for part in scales_and_zeros.unbind(-1))
    assert scales.shape == codes.shape
    return (inputs.double() @ (codes * scales + zeros).t()).bfloat16()


@pytest.mark.parametrize(("rows", "columns", "group"), [(64, 256, 128), (24, 384, 32), (8, 512, -1), (16, 128, -1)])
@pytest.mark.parametrize("zeros", [False, True])
def test_int4_codes_scales_and_zeros_are_what_the_operator_reads(
    rows: int, columns: int, group: int, zeros: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_pack_int4", lambda pairs: pairs)
    monkeypatch.setattr(cuda, "_int4_product", documented_int4)
    given = weight(rows, columns, 4, group, zeros=zeros)
    assert cuda._int4_fits(given)
    kernel = cuda.Int4CudaKernel(given)
    for tokens in ROWS:
        wide = torch.randn(tokens, 2 * columns, generator=torch.Generator().manual_seed(tokens)).bfloat16()
        inputs = wide[:, columns:]  # a slice, as a model may hand over
        product = kernel.multiply(inputs)
        assert product.dtype is torch.bfloat16
        exact = inputs.double() @ dequantize(given).double().t()
        # the result and the zero point times the scale are each rounded to 8 bits of mantissa once
        assert relative_error(product, exact) < 2 * 2**-8


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_int8_products_are_exact_sums_at_any_number_of_rows(activations: str) -> None:
    given = weight(48, 96, 8, -1)
    if activations == "static":
        scale, zero = torch.tensor([0.03]), torch.tensor([5], dtype=torch.int8)
        given = QuantizedWeight(given.codes, given.scales, None, 8, -1, input_scale=scale, input_zero=zero)
    kernel = cuda.Int8CudaKernel(given, activations)  # type: ignore[arg-type]
    for tokens in ROWS:
        inputs = torch.randn(tokens, 96, generator=torch.Generator().manual_seed(tokens))
        stored = InputQuantizer(given, activations).simulate(inputs).double()  # type: ignore[arg-type]
        assert relative_error(kernel.multiply(inputs), stored @ dequantize(given).double().t()) < 1e-5


@pytest.mark.parametrize("activations", ["dynamic", "static"])
def test_float8_is_given_what_the_operator_asks_for(activations: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def documented(
        first: Tensor, second: Tensor, *, scale_a: Tensor, scale_b: Tensor, out_dtype: torch.dtype
    ) -> Tensor:
        """_scaled_mm by rows: row-major times column-major, float32 contiguous scales [tokens, 1] and [1, rows]."""
        assert first.is_contiguous()
        assert second.t().is_contiguous()
        assert scale_a.shape == (len(first), 1)
        assert scale_b.shape == (1, second.shape[1])
        assert scale_a.is_contiguous()
        assert scale_b.is_contiguous()
        assert scale_a.dtype is scale_b.dtype is torch.float32
        assert out_dtype is torch.bfloat16  # the only one by rows
        return ((first.double() * scale_a) @ (second.double() * scale_b)).to(out_dtype)

    monkeypatch.setattr(torch, "_scaled_mm", documented)
    plain = weight(48, 96, 8, -1)
    codes = (plain.codes.float() / 16).to(torch.float8_e4m3fn)
    static = torch.tensor([0.01]) if activations == "static" else None
    given = QuantizedWeight(codes, plain.scales, None, 8, -1, input_scale=static)
    kernel = cuda.Float8CudaKernel(given, activations)  # type: ignore[arg-type]
    exact = codes.double() * plain.scales.double()
    for tokens in ROWS:
        inputs = torch.randn(tokens, 96, generator=torch.Generator().manual_seed(tokens)).bfloat16()
        stored = InputQuantizer(given, activations).simulate(inputs.float()).double()  # type: ignore[arg-type]
        assert relative_error(kernel.multiply(inputs), stored @ exact.t()) < 2**-8


INTERPRETED = """
import torch
from qtool.kernels.gpu.triton_int8 import TritonInt8Kernel
from qtool.formats.stored_weights import StoredWeight, dequantize

for rows, columns, group in ((96, 256, 128), (33, 128, -1)):
    stream = torch.Generator().manual_seed(rows)
    codes = torch.randint(-128, 128, (rows, columns), generator=stream, dtype=torch.int8)
    scales = torch.rand(rows, 1 if group == -1 else columns // group, generator=stream) * 0.01
    weight = StoredWeight(codes, scales, None, 8, group)
    for tokens in (1, 2, 7, 32, 64, 100):
        for dtype, most in ((torch.float32, 1e-5), (torch.float16, 2**-10)):
            inputs = torch.randn(tokens, columns, generator=stream).to(dtype)
            product = TritonInt8Kernel(weight).multiply(inputs).double()
            exact = inputs.double() @ dequantize(weight).double().t()
            error = float((product - exact).norm() / exact.norm())
            assert error < most, (rows, columns, tokens, dtype, error)
print("right")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_triton_program_is_right_when_it_is_interpreted() -> None:
    """float16 and float32: Triton's interpreter multiplies the bits of bfloat16 numbers, not the numbers."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", INTERPRETED]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert process.stdout.strip() == "right", process.stderr[-800:]
