"""Layers that share an input become one product and answer as they did alone."""

import torch

from qtool.formats.stored_weights import StoredWeight, dequantize
from qtool.kernels.dense import DenseKernel
from qtool.kernels.dispatch import choose_kernel
from qtool.kernels.fused import SharedProduct, fuse, join, may_be_joined
from tests.kernels.test_products import make_weight


def test_parts_answer_as_their_own_layers() -> None:
    weights, biases = [torch.randn(rows, 48) for rows in (16, 8, 24)], [torch.randn(16), None, torch.randn(24)]
    shared = SharedProduct(DenseKernel(torch.cat(weights)), columns=48, parts=3)
    parts = fuse(shared, [16, 8, 24], 48, biases)
    for inputs in (torch.randn(2, 3, 48), torch.randn(1, 1, 48)):
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            torch.testing.assert_close(part(inputs), torch.nn.functional.linear(inputs, weight, bias))


def test_one_product_is_computed_for_one_input_and_none_is_kept() -> None:
    calls = []
    kernel = DenseKernel(torch.randn(8, 4))
    multiply = kernel.multiply
    kernel.multiply = lambda inputs: calls.append(1) or multiply(inputs)  # type: ignore[method-assign,func-returns-value]
    shared = SharedProduct(kernel, columns=4, parts=2)
    first, second = fuse(shared, [4, 4], 4, [None, None])
    inputs, others = torch.randn(3, 4), torch.randn(3, 4)
    first(inputs), second(inputs)
    assert len(calls) == 1
    first(inputs), first(others), second(inputs)  # out of order: computed afresh, never mixed up
    torch.testing.assert_close(second(others), multiply(others)[:, 4:])
    assert len(calls) >= 4


def test_joined_weights_stand_for_the_same_numbers() -> None:
    weights = [make_weight(rows, 64, 4, 32, zeros=True) for rows in (16, 32)]
    assert may_be_joined(weights)
    joined = join(weights)
    assert torch.equal(dequantize(joined), torch.cat([dequantize(weight) for weight in weights]))
    inputs = torch.randn(5, 64)
    alone = torch.cat([choose_kernel(w, "none", device=torch.device("cpu")).multiply(inputs) for w in weights], 1)
    together = choose_kernel(joined, "none", device=torch.device("cpu")).multiply(inputs)
    torch.testing.assert_close(together, alone)


def test_unlike_weights_are_not_joined() -> None:
    plain, grouped, shuffled = (
        make_weight(16, 64, 4, -1),
        make_weight(16, 64, 4, 32),
        make_weight(16, 64, 4, 32, shuffled=True),
    )
    assert not may_be_joined([plain, grouped])
    assert not may_be_joined([shuffled, shuffled])
    static = [
        StoredWeight(plain.codes, plain.scales, None, 8, -1, input_scale=torch.tensor([scale])) for scale in (0.1, 0.2)
    ]
    assert not may_be_joined(static)
