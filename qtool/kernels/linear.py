"""The module that takes a linear layer's place in the model."""

import torch
from torch import Tensor, nn

from qtool.kernels.contract import Kernel


class KernelLinear(nn.Module):
    """y = x W^T + b over the last dimension, W held by a kernel."""

    def __init__(self, kernel: Kernel, *, rows: int, columns: int, bias: Tensor | None) -> None:
        super().__init__()
        self.kernel = kernel
        self.in_features = columns
        self.out_features = rows
        self.bias: Tensor | None
        self.register_buffer("bias", bias)

    @property
    def weight(self) -> Tensor:
        """NaN [rows, columns], of no size: some models ask a layer for the type or shape of its weight. The numbers are
        the kernel's, so whoever multiplies by these finds out at once."""
        return placeholder(self.out_features, self.in_features)

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., columns] -> [..., rows] in the type of `inputs`."""
        result = self.kernel.multiply(inputs.reshape(-1, self.in_features))
        if self.bias is not None:
            result = result + self.bias
        return result.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shape and kernel, for a printed model."""
        return f"{self.in_features}, {self.out_features}, {self.kernel.label}"


def placeholder(rows: int, columns: int) -> Tensor:
    """A weight that can be looked at and not be multiplied by: one NaN seen as a matrix."""
    return torch.full((1, 1), torch.nan).expand(rows, columns)
