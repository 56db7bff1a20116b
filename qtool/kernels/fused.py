"""Layers with the same input as one product: query, key and value, or gate and up."""

from collections.abc import Sequence

from torch import Tensor, nn

from qtool.kernels.contract import Kernel, QuantizedWeight
from qtool.kernels.weight_view import numbers_of, weight_view


class SharedProduct:
    """The product of several layers' rows with one input. The first layer asked computes it, the others find it.

    A model calls these layers one after another with the very same tensor; any other tensor is computed afresh.
    """

    def __init__(self, kernel: Kernel, *, columns: int, parts: int) -> None:
        self.kernel = kernel
        self._columns = columns
        self._parts = parts
        self._inputs: Tensor | None = None
        self._product: Tensor | None = None
        self._left = 0

    def of(self, inputs: Tensor) -> Tensor:
        """[..., columns] -> [..., rows of all parts]."""
        if self._product is None or self._inputs is not inputs:
            product = self.kernel.multiply(inputs.reshape(-1, self._columns).contiguous())
            self._inputs, self._product = inputs, product.view(*inputs.shape[:-1], -1)
            self._left = self._parts
        found = self._product
        self._left -= 1
        if self._left == 0:
            self._inputs = self._product = None
        return found


class FusedLinear(nn.Module):
    """One layer's rows `first` to `last` of a shared product, plus its own bias."""

    def __init__(self, shared: SharedProduct, *, first: int, last: int, columns: int, bias: Tensor | None) -> None:
        super().__init__()
        self.shared = shared
        self.first, self.last = first, last
        self.in_features, self.out_features = columns, last - first
        self.bias: Tensor | None
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """[rows, columns], as KernelLinear shows it."""
        kernel, own = self.shared.kernel, slice(self.first, self.last)
        return weight_view(
            self.out_features, self.in_features, lambda device: numbers_of(kernel, self.in_features, device)[own]
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., columns] -> [..., rows] in the type of `inputs`."""
        result = self.shared.of(inputs)[..., self.first : self.last]
        return result if self.bias is None else result + self.bias


def fuse(
    shared: SharedProduct, rows: Sequence[int], columns: int, biases: Sequence[Tensor | None]
) -> list[FusedLinear]:
    """One layer for each entry of `rows`, in order, over `shared`."""
    found, first = [], 0
    for count, bias in zip(rows, biases, strict=True):
        found.append(FusedLinear(shared, first=first, last=first + count, columns=columns, bias=bias))
        first += count
    return found


def may_be_joined(weights: Sequence[QuantizedWeight]) -> bool:
    """Whether weights are alike enough to be one: bits, groups, column order and stored input scale."""
    head = weights[0]
    return all(
        weight.bits == head.bits
        and weight.codes.dtype is head.codes.dtype
        and weight.codes.shape[1] == head.codes.shape[1]
        and weight.scales.shape[1] == head.scales.shape[1]
        and weight.scales.dtype is head.scales.dtype
        and (weight.zeros is None) == (head.zeros is None)
        and weight.group_of_column is None
        and _same(weight.input_scale, head.input_scale)
        and _same(weight.input_zero, head.input_zero)
        for weight in weights
    )


def join(weights: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Weights one below the other. They must be alike: see `may_be_joined`."""
    import torch

    head = weights[0]
    zeros = [weight.zeros for weight in weights if weight.zeros is not None]
    return QuantizedWeight(
        codes=torch.cat([weight.codes for weight in weights]),
        scales=torch.cat([weight.scales for weight in weights]),
        zeros=torch.cat(zeros) if zeros else None,
        bits=head.bits,
        group_size=head.group_size,
        input_scale=head.input_scale,
        input_zero=head.input_zero,
    )


def _same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return bool((first == second).all())
