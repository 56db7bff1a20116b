"""What a kernel is: a weight in the form an operator wants, and the product with it."""

from typing import Literal, Protocol

from torch import Tensor

from qtool.formats.stored_weights import StoredWeight

QuantizedWeight = StoredWeight

Activations = Literal["none", "dynamic", "static"]


class Kernel(Protocol):
    """One weight in the form an operator wants. `multiply` takes [tokens, columns] and gives [tokens, rows], both in
    the type of the input; `bytes` is what the weight occupies."""

    @property
    def label(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    def multiply(self, inputs: Tensor) -> Tensor: ...
