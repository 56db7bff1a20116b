"""Which device and number type a model runs in, and what this machine is called in a record."""

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from qtool.errors import CapacityError, UsageError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # the last two on ARM


def choose_device(requested: str = "auto") -> torch.device:
    """The device to run on; "auto" is the first CUDA device if any. Raises CapacityError if it is absent."""
    if requested == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise UsageError(f"unknown device {requested!r}; use auto, cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CapacityError(f"device {requested!r} was asked for, but torch sees no CUDA device here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise CapacityError(f"device {requested!r} was asked for, but there are {torch.cuda.device_count()} here")
    return device


def choose_dtype(requested: str, config: Mapping[str, object], device: torch.device) -> torch.dtype:
    """The type to compute in; "auto" is the config's own where `device` has instructions for it, see `computed_in`."""
    if requested != "auto":
        if requested not in _DTYPES:
            raise UsageError(f"unknown dtype {requested!r}; use auto, {', '.join(_DTYPES)}")
        return _DTYPES[requested]
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return computed_in(_DTYPES.get(stored, torch.float32), device)


def computed_in(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The one rule of "auto", in evaluation, timing, serving, calibration and quantization alike: the stored type, but
    float32 on a CPU for float16, and for bfloat16 where the processor would emulate it, slowly. Every half number is a
    float32, so nothing is lost."""
    emulated = stored is torch.float16 or (stored is torch.bfloat16 and not has_bfloat16())
    return torch.float32 if device.type == "cpu" and emulated else stored


@functools.lru_cache(maxsize=1)
def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 by instructions of its own, not by way of float32."""
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in _BFLOAT16)


def hardware() -> str:
    """This machine in one line: processor, cores that may be used, and GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    line = f"{_processor()}, {cores} cores"
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        line += f", {f'{count} x ' if count > 1 else ''}{torch.cuda.get_device_name(0)}"
    return line


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
