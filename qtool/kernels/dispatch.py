"""Which kernel multiplies a weight, by device, scheme and shape, and up to how many rows the packed operators win."""

from typing import NamedTuple

import torch

from qtool.kernels.contract import Activations, Kernel, QuantizedWeight
from qtool.kernels.cpu import int4_cpu, int8_cpu, native_cpu, native_many
from qtool.kernels.tiles import TileKernel


class Crossovers(NamedTuple):
    """Most rows at which the packed operators still beat tiles dequantized and multiplied as numbers."""

    int4_rows: int
    int8_rows: int


# read from measurements on one machine of each kind (AVX512: 4096 x 4096, AVX2: 2048 x 2048); constants and not a
# measurement at start, because a product computed another way may round another way, and runs must repeat
_CROSSOVERS = {
    "AVX512": Crossovers(int4_rows=48, int8_rows=32),
    "AVX2": Crossovers(int4_rows=56, int8_rows=20),
}
_SMALL = 1 << 18  # scalars; where oneDNN must multiply in halves, smaller weights are faster as numbers
_WITHOUT_VECTORS = Crossovers(int4_rows=0, int8_rows=0)


def crossovers() -> Crossovers:
    """What holds for this processor."""
    return _CROSSOVERS.get(torch.backends.cpu.get_cpu_capability(), _WITHOUT_VECTORS)


def choose_kernel(weight: QuantizedWeight, activations: Activations, *, device: torch.device) -> Kernel:
    """The fastest kernel that can express `weight` on `device`; the fallback by tiles can express any."""
    if device.type == "cpu":
        if activations == "none" and native_cpu.weight_fits(weight) and not native_cpu.refusal():
            return native_many.faster_way(native_cpu.weight_kernel(weight), weight, activations)
        if activations != "none" and native_cpu.input_fits(weight) and not native_cpu.refusal():
            return native_many.faster_way(native_cpu.input_kernel(weight, activations), weight, activations)
        if activations == "none" and int4_cpu.fits(weight):
            return int4_cpu.Int4Kernel(weight, few_rows=crossovers().int4_rows)
        if activations == "none" and int8_cpu.weight_fits(weight):
            return int8_cpu.Int8WeightKernel(weight, few_rows=crossovers().int8_rows)
        if activations != "none" and int8_cpu.input_fits(weight) and not int8_cpu.onednn_products().reason:
            small = weight.codes.numel() <= _SMALL and int8_cpu.onednn_products().inexact
            return int8_cpu.SmallInt8Kernel(weight, activations) if small else int8_cpu.Int8Kernel(weight, activations)
    if device.type == "cuda":
        from qtool.kernels.gpu.cuda import choose_cuda_kernel

        return choose_cuda_kernel(weight, activations)
    return TileKernel(weight, activations)
