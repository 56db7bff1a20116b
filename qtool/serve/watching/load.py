"""Gauges that are read when somebody scrapes: what the engine holds, how long people wait, what the processes cost."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from qtool.serve.supervision.messages import Beat

_WINDOW_SECONDS = 300.0
_MOST_WAITS = 5000


class Waits:
    """Times in the queue of the last five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waits: deque[tuple[float, float]] = deque(maxlen=_MOST_WAITS)

    def add(self, seconds: float) -> None:
        """One wait more."""
        self._waits.append((self._clock(), seconds))

    def p99(self) -> float:
        """Seconds that 99 of 100 waited at most; 0 where nobody waited."""
        since = self._clock() - _WINDOW_SECONDS
        recent = sorted(seconds for moment, seconds in self._waits if moment >= since)
        return recent[min(int(0.99 * len(recent)), len(recent) - 1)] if recent else 0.0


def kept_ratio(beat: Beat) -> float:
    """Share of the key-value memory that is taken or set aside."""
    status = beat.status
    return status.kept_tokens / status.room_tokens if status is not None and status.room_tokens else 0.0


def gauges_of(
    beat: Callable[[], Beat], registry: CollectorRegistry, names: Sequence[str], labels: Sequence[str]
) -> None:
    """The engine's own counts, as its last beat told them."""

    def gauge(name: str, about: str, read: Callable[[Beat], float]) -> None:
        Gauge(name, about, names, registry=registry).labels(*labels).set_function(lambda: read(beat()))

    gauge("qtool_kv_cache_usage_ratio", "Key-value memory taken or set aside.", kept_ratio)
    gauge(
        "qtool_prefix_cache_queries",
        "Prompt tokens of all requests that got a place, since the engine started.",
        lambda told: told.status.prompt_tokens if told.status else 0.0,
    )
    gauge(
        "qtool_prefix_cache_hits",
        "Of those, tokens whose keys an earlier prompt had left.",
        lambda told: told.status.reused_tokens if told.status else 0.0,
    )
    gauge(
        "qtool_gpu_memory_used_bytes",
        "Memory of the accelerator in use, by everybody; 0 on a CPU.",
        lambda told: told.device_bytes[0] if told.device_bytes else 0.0,
    )
    gauge(
        "qtool_gpu_memory_bytes",
        "Memory of the accelerator; 0 on a CPU.",
        lambda told: told.device_bytes[1] if told.device_bytes else 0.0,
    )


def process_registry(engine: Callable[[], int | None]) -> CollectorRegistry:
    """Memory, processor time and descriptors of the server (`process_`) and its engine (`qtool_engine_`)."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    ProcessCollector(namespace="qtool_engine", pid=lambda: engine() or 0, registry=registry)
    return registry
