"""The module that takes a linear layer's place in the model."""

from torch import Tensor, nn

from qtool.kernels.contract import Kernel
from qtool.kernels.weight_view import numbers_of, weight_view


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
        """[rows, columns], for models whose own code looks at it or multiplies by it."""
        return weight_view(
            self.out_features, self.in_features, lambda device: numbers_of(self.kernel, self.in_features, device)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., columns] -> [..., rows] in the type of `inputs`."""
        result = self.kernel.multiply(inputs.reshape(-1, self.in_features).contiguous())
        if self.bias is not None:
            result = result + self.bias
        return result.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Shape and kernel, for a printed model."""
        return f"{self.in_features}, {self.out_features}, {self.kernel.label}"
