"""Quantized products on a CUDA device by torch's own operators, each trusted only after it gave right numbers here."""

import functools

import torch
from torch import Tensor

from qtool.kernels.contract import Activations, Kernel, QuantizedWeight
from qtool.kernels.tiles import InputQuantizer, TileKernel

_INT4_GROUPS = (32, 64, 128, 256)
_INNER_TILES = 8
_LEAST_INT8_ROWS = 17  # _int_mm refuses fewer; rows are added and thrown away
_ALIGN = 16
_FLOAT8 = torch.float8_e4m3fn
_LARGEST_FLOAT8 = torch.finfo(_FLOAT8).max


class Int4CudaKernel:
    """Weight-only 4 bits by torch's tensor-core product (tinygemm); bfloat16 inputs."""

    def __init__(self, weight: QuantizedWeight) -> None:
        self._rows, self._columns = weight.codes.shape
        groups = weight.scales.shape[1]
        self._group = weight.group_size if groups > 1 else _widest_group(self._columns)
        self._row_scales = weight.scales[:, 0].float() if groups == 1 else None
        unsigned = (weight.codes + 8).to(torch.uint8)
        pairs = (unsigned[:, ::2] << 4) | unsigned[:, 1::2]
        self._packed = _pack_int4(pairs.contiguous())
        expanded = self._columns // self._group
        scales = weight.scales.float() if groups > 1 else torch.ones_like(weight.scales.float()).expand(-1, expanded)
        zeros = torch.zeros_like(scales) if weight.zeros is None else -weight.zeros.float() * scales
        self._scales = torch.stack([scales.t(), zeros.t()], dim=-1).bfloat16().contiguous()
        self.label = "int4 tensor-core product"

    @property
    def bytes(self) -> int:
        """Memory of packed weights and scales."""
        row_scales = 0 if self._row_scales is None else self._row_scales.numel() * 4
        packed: int = self._packed.numel() * self._packed.element_size()
        return packed + self._scales.numel() * 2 + row_scales

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        product = _int4_product(inputs.bfloat16().contiguous(), self._packed, self._group, self._scales)
        if self._row_scales is not None:
            product = product.float() * self._row_scales
        return product.to(inputs.dtype)


def _pack_int4(pairs: Tensor) -> Tensor:
    """Codes 0..15 as bytes [rows, columns / 2], the even column in the high half, in the operator's own order."""
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack(pairs, _INNER_TILES)
    return packed


def _int4_product(inputs: Tensor, packed: Tensor, group: int, scales_and_zeros: Tensor) -> Tensor:
    """bfloat16 inputs times (codes - 8) * scale + zero; scales_and_zeros is bfloat16 [groups, rows, 2]."""
    product: Tensor = torch.ops.aten._weight_int4pack_mm(inputs, packed, group, scales_and_zeros)
    return product


class Int8CudaKernel:
    """8-bit weights, one scale a row, 8-bit inputs: `_int_mm` on tensor cores, scales applied in float32."""

    def __init__(self, weight: QuantizedWeight, activations: Activations) -> None:
        self._inputs = InputQuantizer(weight, activations)
        self._codes = weight.codes.contiguous()
        self._scales = weight.scales[:, 0].float().contiguous()
        self._sums = self._codes.sum(1, dtype=torch.int32) * float(self._inputs.zero) if self._inputs.zero else None
        self.label = f"int8 tensor-core product, {activations} 8-bit inputs"

    @property
    def bytes(self) -> int:
        """Memory of codes and scales."""
        return self._codes.numel() + self._scales.numel() * 4

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        codes, scale = self._inputs.codes(inputs)
        narrow = codes.to(torch.int8)
        missing = _LEAST_INT8_ROWS - narrow.shape[0]
        if missing > 0:
            narrow = torch.nn.functional.pad(narrow, (0, 0, 0, missing))
        product = torch._int_mm(narrow, self._codes.t())[: inputs.shape[0]].float()
        if self._sums is not None:
            product = product - self._sums
        return (product * self._scales * scale).to(inputs.dtype)


class Float8CudaKernel:
    """e4m3 weights and inputs by `_scaled_mm`, a scale for each row of either."""

    def __init__(self, weight: QuantizedWeight, activations: Activations) -> None:
        self._codes = weight.codes.contiguous()
        self._scales = weight.scales[:, 0].float().reshape(1, -1).contiguous()
        given = weight.input_scale if activations == "static" else None
        self._static = None if given is None else given.float().reshape(1, 1).to(self._codes.device)
        self.label = f"fp8 scaled product, {activations} 8-bit inputs"

    @property
    def bytes(self) -> int:
        """Memory of codes and scales."""
        return self._codes.numel() + self._scales.numel() * 4

    def multiply(self, inputs: Tensor) -> Tensor:
        """[tokens, columns] -> [tokens, rows] in the type of `inputs`."""
        wide = inputs.float()
        if self._static is not None:
            scale = self._static.expand(len(wide), 1).contiguous()  # moved when loaded: a captured graph may not copy
        else:
            scale = wide.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / _LARGEST_FLOAT8
        codes = (wide / scale).clamp(-_LARGEST_FLOAT8, _LARGEST_FLOAT8).to(_FLOAT8)
        product: Tensor = torch._scaled_mm(
            codes, self._codes.t(), scale_a=scale, scale_b=self._scales, out_dtype=torch.bfloat16
        )
        return product.to(inputs.dtype)


def choose_cuda_kernel(weight: QuantizedWeight, activations: Activations) -> Kernel:
    """The best operator of this device that can express `weight` and gives right numbers; else tiles."""
    rows, columns = weight.codes.shape
    plain = weight.zeros is None and weight.scales.shape[1] == 1 and weight.group_of_column is None
    aligned = rows % _ALIGN == 0 and columns % _ALIGN == 0
    if weight.codes.dtype is _FLOAT8:
        if activations != "none" and plain and aligned and _float8_works():
            return Float8CudaKernel(weight, activations)
    elif activations != "none":
        if plain and aligned and _int8_works():
            return Int8CudaKernel(weight, activations)
    elif weight.bits == 4 and _int4_fits(weight) and _int4_works():
        return Int4CudaKernel(weight)
    elif weight.bits == 8 and weight.zeros is None and weight.group_of_column is None:
        from qtool.kernels.gpu import triton_int8

        if triton_int8.fits(weight) and triton_int8.works():
            return triton_int8.TritonInt8Kernel(weight)
    return TileKernel(weight, activations)


def _int4_fits(weight: QuantizedWeight) -> bool:
    rows, columns = weight.codes.shape
    groups = weight.scales.shape[1]
    group = weight.group_size if groups > 1 else _widest_group(columns)
    whole = group in _INT4_GROUPS and columns % group == 0
    return whole and weight.group_of_column is None and rows % 8 == 0 and columns % (_INNER_TILES * 16) == 0


def _widest_group(columns: int) -> int:
    return next((group for group in reversed(_INT4_GROUPS) if columns % group == 0), 0)


@functools.cache
def _int4_works() -> bool:
    return _agrees(4, 128, "none")


@functools.cache
def _int8_works() -> bool:
    return _agrees(8, -1, "dynamic")


@functools.cache
def _float8_works() -> bool:
    return _agrees(8, -1, "dynamic", float8=True)


def _agrees(bits: int, group: int, activations: Activations, *, float8: bool = False) -> bool:
    """Whether the operator and the tiles give the same product on this device, within bfloat16 rounding."""
    generator = torch.Generator().manual_seed(0)
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (256, 256), generator=generator, dtype=torch.int8).cuda()
    if float8:
        codes = (codes.float() / 16).to(_FLOAT8)
    scales = torch.rand(256, 1 if group == -1 else 256 // group, generator=generator).cuda() * 0.01 + 0.001
    weight = QuantizedWeight(codes, scales, None, bits, group)
    inputs = torch.randn(5, 256, generator=generator).cuda().bfloat16()
    kernel: Kernel
    try:
        if float8:
            kernel = Float8CudaKernel(weight, activations)
        else:
            kernel = Int4CudaKernel(weight) if bits == 4 else Int8CudaKernel(weight, activations)
        product = kernel.multiply(inputs).float()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    expected = TileKernel(weight, activations).multiply(inputs).float()
    return bool((product - expected).norm() <= 0.01 * expected.norm())
