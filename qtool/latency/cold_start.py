"""A model opened in a process of its own: time to its first token, time to load, and the most memory it took."""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from qtool.errors import CapacityError, ModelError

_LONGEST_S = 1800


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Process start to first token, the loading alone (libraries it imports included), and peak memory with every slot
    of the largest level busy: the larger of resident and GPU memory, and GPU memory by itself (0 without one)."""

    first_token_seconds: float
    load_seconds: float
    peak_memory_bytes: int
    peak_gpu_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """What the process does once it has its first token."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int
    backend: str = "qtool"
    dtype: str = "auto"
    device: str = "auto"


def cold_start(folder: Path, trial: Trial) -> ColdStart:
    """Measured in a fresh process. Raises ModelError with what that process said when it fails."""
    command = [sys.executable, "-m", "qtool.latency.cold_start", str(folder), json.dumps(asdict(trial))]
    import torch

    started = time.time()
    try:
        process = subprocess.run(
            [*command, str(started)],
            capture_output=True,
            text=True,
            timeout=_LONGEST_S,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
    except subprocess.TimeoutExpired as error:
        raise CapacityError(f"{folder}: gave no token within {_LONGEST_S} s of starting") from error
    if process.returncode != 0:
        said = process.stderr.strip().splitlines()
        raise ModelError(f"{folder}: failed to start in a fresh process: {said[-1] if said else process.returncode}")
    return ColdStart(**json.loads(process.stdout.strip().splitlines()[-1]))


def _run(folder: Path, trial: Trial, started: float) -> ColdStart:
    from qtool.engine.load import open_engine
    from qtool.latency.timing import Load
    from qtool.latency.traffic import random_requests, send

    opening = time.time()
    engine = open_engine(folder, backend=trial.backend, dtype=trial.dtype, device=trial.device, slots=trial.concurrency)
    load_seconds = time.time() - opening
    shape = {"prompt_tokens": trial.prompt_tokens, "vocabulary": engine.status().vocabulary}
    send(engine, list(random_requests(1, output_tokens=1, seed=1, **shape)), Load(1))
    first_token_seconds = time.time() - started
    busy = random_requests(trial.concurrency, output_tokens=trial.output_tokens, seed=2, **shape)
    send(engine, list(busy), Load(trial.concurrency))
    on_gpu = _peak_gpu_bytes()
    return ColdStart(first_token_seconds, load_seconds, max(_peak_resident_bytes(), on_gpu), on_gpu)


def _peak_gpu_bytes() -> int:
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def _peak_resident_bytes() -> int:
    """Asked of /proc where there is one: on Linux `ru_maxrss` also remembers the parent that started this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


if __name__ == "__main__":
    figures = _run(Path(sys.argv[1]), Trial(**json.loads(sys.argv[2])), float(sys.argv[3]))
    sys.stdout.write(json.dumps(asdict(figures)) + "\n")
