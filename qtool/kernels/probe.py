"""What this machine can do: asked of torch by doing it, never taken from a version number."""

import importlib.metadata
import os
import platform
from dataclasses import dataclass

import torch

from qtool.formats.stored_weights import StoredWeight
from qtool.kernels.cpu import int4_cpu, int8_cpu, native_cpu
from qtool.kernels.cpu.levels import FORCED
from qtool.kernels.cpu.native_build import SWITCH, native
from qtool.kernels.dense import prepack_works
from qtool.kernels.dispatch import choose_kernel, crossovers
from qtool.machine.device import choose_device, hardware, has_bfloat16

_PACKAGES = (
    "torch",
    "transformers",
    "compressed-tensors",
    "safetensors",
    "tokenizers",
    "bitsandbytes",
    "gptqmodel",
    "datasets",
    "evaluate",
    "triton",
)
SCHEMES = ("w4a16 g128", "w4a16 per row", "w8a16 g128", "w8a16 per row", "w8a8 dynamic", "w8a8 static", "fp8")


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The kernel a scheme runs on here."""

    scheme: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """This machine as qtool sees it. `remarks` name what is slow or missing, and what is done instead."""

    hardware: str
    device: str
    python: str
    packages: tuple[tuple[str, str], ...]
    memory_bytes: int
    memory_free_bytes: int
    threads: int
    load_average: float
    vector_instructions: str
    level: str  # of the compiled products, empty where they are not used
    int4_rows: int
    int8_rows: int
    kernels: tuple[KernelChoice, ...]
    remarks: tuple[str, ...]


def capabilities() -> Capabilities:
    """What this machine offers, and which kernel each scheme gets on it."""
    import psutil

    device = choose_device("auto")
    memory = psutil.virtual_memory()
    return Capabilities(
        hardware=hardware(),
        device=str(device),
        python=platform.python_version(),
        packages=tuple((name, _version(name)) for name in _PACKAGES),
        memory_bytes=int(memory.total),
        memory_free_bytes=int(memory.available),
        threads=torch.get_num_threads(),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
        vector_instructions=torch.backends.cpu.get_cpu_capability(),
        level=_level(),
        int4_rows=crossovers().int4_rows,
        int8_rows=crossovers().int8_rows,
        kernels=tuple(KernelChoice(scheme, _kernel(scheme, device)) for scheme in SCHEMES),
        remarks=tuple(_remarks(device)),
    )


def sample_weight(scheme: str, rows: int, columns: int, *, device: torch.device) -> StoredWeight:
    """A random weight of one of SCHEMES, for probing and timing."""
    generator = torch.Generator().manual_seed(0)
    bits = 4 if scheme.startswith("w4") else 8
    group = 128 if scheme.endswith("g128") else -1
    half = 1 << (bits - 1)
    codes = torch.randint(-half, half, (rows, columns), generator=generator, dtype=torch.int8)
    scales = torch.rand(rows, columns // group if group != -1 else 1, generator=generator) * 0.01 + 0.001
    if scheme == "fp8":
        codes = codes.float().div_(16).to(torch.float8_e4m3fn)
    static = torch.tensor([0.02]) if scheme == "w8a8 static" else None
    return StoredWeight(codes.to(device), scales.to(device), None, bits, group, input_scale=static)


def activations_of(scheme: str) -> str:
    """How the inputs of a scheme are stored: none, dynamic or static."""
    return {"w8a8 dynamic": "dynamic", "w8a8 static": "static", "fp8": "dynamic"}.get(scheme, "none")


def _kernel(scheme: str, device: torch.device) -> str:
    weight = sample_weight(scheme, 128, 128, device=device)
    return choose_kernel(weight, activations_of(scheme), device=device).label  # type: ignore[arg-type]


def _remarks(device: torch.device) -> list[str]:
    remarks = []
    if device.type == "cpu":
        remarks.append("no GPU here: everything runs on the CPU")
        if not has_bfloat16():
            remarks.append("no bfloat16 instructions: a bfloat16 model is computed in float32 (--dtype auto)")
        remarks.append(_compiled())
    products = int8_cpu.onednn_products()
    if products.reason:
        remarks.append(f"oneDNN's u8 x s8 product is not used: {products.reason}; w8a8 is simulated")
    elif products.inexact and native_cpu.refusal():
        remarks.append("8-bit sums saturate here (no VNNI): w8a8 multiplies in two halves, exactly, at twice the time")
    if int4_cpu.layout() is None and native_cpu.refusal():
        remarks.append("the int4 packing order is unknown here: many rows use the packed product too, slowly")
    if reason := prepack_works(torch.float32):
        remarks.append(f"oneDNN cannot prepack float32 weights: {reason}")
    return remarks


def _level() -> str:
    level = native().level
    return "" if level is None or native_cpu.refusal() else level.name


def _compiled() -> str:
    reason = native_cpu.refusal()
    if reason:
        return f"compiled products are not used: {reason}; torch's own operators do the work"
    library = native()
    assert library.level is not None, "there is a library where nothing refuses it"
    why = f", {library.reason}" if library.reason else ""
    used = f"compiled products and decoding steps are used: level {library.level.name}{why} ({library.level.remark})"
    return f"{used}; {FORCED} forces a lower level, {SWITCH}=0 switches them off"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
