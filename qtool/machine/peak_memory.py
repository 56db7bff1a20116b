"""Peak memory of this process, from a moment on."""

import resource
import sys
from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak() -> bool:
    """Makes `peak_bytes` count from now on; False where the system cannot, and it counts from the process's start."""
    try:
        _CLEAR.write_text("5")  # Linux: resets the high-water mark of resident memory
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The most resident memory this process has held, in bytes, plus the most a GPU held for it."""
    return _host_peak() + _device_peak()


def _host_peak() -> int:
    try:
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass  # no /proc here: ask the resource module
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage << 10


def _device_peak() -> int:
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0
