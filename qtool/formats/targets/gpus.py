"""Compute capability of the GPUs that `--gpu` names, from https://developer.nvidia.com/cuda-gpus (and legacy-gpus)."""

import re
from collections.abc import Mapping

from qtool.errors import UnknownName

Capability = tuple[int, int]

GPUS: Mapping[str, Capability] = {
    "v100": (7, 0),
    "t4": (7, 5),
    "a100": (8, 0),
    "a30": (8, 0),
    "a10": (8, 6),
    "a40": (8, 6),
    "rtx-3090": (8, 6),
    "l4": (8, 9),
    "l40": (8, 9),
    "l40s": (8, 9),
    "rtx-4090": (8, 9),
    "h100": (9, 0),
    "h200": (9, 0),
    "gh200": (9, 0),
    "b200": (10, 0),
    "gb200": (10, 0),
    "b300": (10, 3),
    "gb300": (10, 3),
    "rtx-5090": (12, 0),
    "rtx-pro-6000": (12, 0),
}


def capability(gpu: str) -> Capability:
    """Compute capability of `gpu`, a name or itself a capability such as 8.6. Raises UnknownName."""
    if found := re.fullmatch(r"(\d{1,2})\.(\d)", gpu):
        return int(found[1]), int(found[2])
    name = gpu.lower().replace(" ", "-").replace("_", "-")
    if name not in GPUS:
        raise UnknownName("gpu", gpu, GPUS)
    return GPUS[name]
