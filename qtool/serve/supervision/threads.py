"""How many threads an engine computes with: the cores this process really has, and of those as many as help."""

import time
from collections.abc import Callable

from qtool.machine.threads import usable_cores, waiting

_WORTH = 0.9  # more threads must save at least a tenth: on a shared machine they cost others their cores


def environment(threads: int | None) -> dict[str, str]:
    """What an engine's process is started with beside the server's own environment."""
    return {"OMP_NUM_THREADS": str(threads or usable_cores()), **waiting(), "TOKENIZERS_PARALLELISM": "false"}


def fastest(run: Callable[[], object], candidates: list[int]) -> tuple[int, dict[int, float]]:
    """The number of threads with which `run` is fastest, fewer where more save less than a tenth; seconds of each."""
    import torch

    seconds: dict[int, float] = {}
    for threads in candidates:
        torch.set_num_threads(threads)
        run()
        times = []
        for _ in range(2):
            began = time.perf_counter()
            run()
            times.append(time.perf_counter() - began)
        seconds[threads] = min(times)
    best = min(candidates)
    for threads in sorted(candidates):
        if seconds[threads] < seconds[best] * _WORTH:
            best = threads
    torch.set_num_threads(best)
    return best, seconds


def candidates(cores: int) -> list[int]:
    """1, half of the cores and all of them."""
    return sorted({1, max(cores // 2, 1), cores})
