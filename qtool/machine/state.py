"""The machine a clock runs on: its name, its load, and how fast it reads memory."""

import os
import time

from qtool.records.latency import MachineState

_BUFFER_BYTES = 256 << 20  # larger than any cache


def load_average() -> float:
    """Processes that want to run, over the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def machine_state(device: str, load_before: float) -> MachineState:
    """This machine now, with the load average from before the timing began."""
    import torch

    from qtool.machine.device import hardware

    return MachineState(
        hardware=hardware(),
        device=device,
        threads=torch.get_num_threads(),
        torch_version=str(torch.__version__),
        load_average_before=load_before,
        load_average_after=load_average(),
    )


def measured_bandwidth(device: str) -> float:
    """Bytes per second that `device` reads, the best of five passes over a buffer no cache holds."""
    import torch

    buffer = torch.ones(_BUFFER_BYTES // 4, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(5):
        _wait(device)
        started = time.perf_counter()
        buffer.sum()
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return _BUFFER_BYTES / best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
