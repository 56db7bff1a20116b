"""Runtime settings and deployment numbers, each from a measurement, or said to be a default where there is none."""

import math
import re
from dataclasses import dataclass

from qtool.errors import MismatchError
from qtool.records.bundle import RuntimeSettings
from qtool.records.latency import LatencyProfile, LoadLevel, Quantile
from qtool.records.report import ReportRow

_DEFAULT_BATCH = 8
_DEFAULT_QUEUE = 100  # also the most
_PATIENCE_SECONDS = 10.0
_DEFAULT_COLD_START_SECONDS = 30.0
_DEFAULT_ALERT_SECONDS = 2.0
_MEGABYTE = 1_000_000
_P99 = 0.99 - 1e-9


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """Numbers that the files of `deploy/` are filled in with; `origin` says of each where it comes from."""

    slug: str
    model: str
    variant: str
    fingerprint: str
    qtool_version: str
    image_tag: str
    port: int
    threads: int
    storage_mb: int
    memory_request_mb: int
    memory_limit_mb: int
    startup_seconds: int
    drain_seconds: int
    alert_seconds: float
    max_batch: int
    max_queue: int
    origin: tuple[tuple[str, str], ...]


def runtime_settings(row: ReportRow, *, dtype: str, context_tokens: int) -> RuntimeSettings:
    """What `serve` uses unless told otherwise."""
    profile = row.latency
    best = best_level(profile)
    return RuntimeSettings(
        dtype=dtype,
        context_tokens=context_tokens,
        max_batch=best.concurrency if best else _DEFAULT_BATCH,
        max_queue=_queue(best),
        memory_bytes=profile.peak_memory_bytes if profile else 2 * row.variant.bytes + 500 * _MEGABYTE,
        cold_start_seconds=profile.first_token_seconds if profile else _DEFAULT_COLD_START_SECONDS,
        e2e_ms_p99=_p99(best),
    )


def measured_dtype(row: ReportRow) -> str:
    """The number type that the variant was evaluated and timed in, which is the one to serve it in; "auto" where
    nothing was measured, or by a version that did not say. Raises MismatchError where there were several."""
    found = {f"evaluated on {each.task}": each.dtype for each in row.evaluations if each.dtype}
    if row.latency is not None and row.latency.dtype:
        found["timed"] = row.latency.dtype
    if len(set(found.values())) > 1:
        told = ", ".join(f"{what} in {dtype}" for what, dtype in found.items())
        raise MismatchError(f"{row.variant.name}: {told}; measure it in one number type before it is bundled")
    return next(iter(found.values()), "auto")


def best_level(profile: LatencyProfile | None) -> LoadLevel | None:
    """The measured load with the most output tokens a second."""
    levels = profile.levels if profile else ()
    return max(levels, key=lambda level: level.output_tokens_per_second, default=None)


def deploy_settings(row: ReportRow, runtime: RuntimeSettings, *, model: str, qtool_version: str) -> DeploySettings:
    """Numbers for `deploy/`: memory from peak memory, probes from the cold start, alerts from the measured p99."""
    measured = row.latency is not None
    alert, alert_origin = _alert(best_level(row.latency))
    origin = (
        ("memory", f"peak memory {runtime.memory_bytes:,} bytes, {'measured' if measured else 'estimated'}, plus 30 %"),
        ("startup", f"first token after {runtime.cold_start_seconds:.1f} s {'measured' if measured else 'assumed'}"),
        ("alert", alert_origin),
    )
    request_mb = math.ceil(1.3 * runtime.memory_bytes / _MEGABYTE)
    return DeploySettings(
        slug=slug(model),
        model=model,
        variant=row.variant.name,
        fingerprint=f"qtool-{row.variant.weights_digest[:12]}",
        qtool_version=qtool_version,
        image_tag=qtool_version.replace("+", "-"),
        port=8000,
        threads=row.latency.machine.threads if row.latency else 1,
        storage_mb=math.ceil(1.2 * row.variant.bytes / _MEGABYTE) + 100,
        memory_request_mb=request_mb,
        memory_limit_mb=math.ceil(1.5 * request_mb),
        startup_seconds=max(60, math.ceil(10 * runtime.cold_start_seconds)),
        drain_seconds=45,
        alert_seconds=alert,
        max_batch=runtime.max_batch,
        max_queue=runtime.max_queue,
        origin=origin,
    )


def slug(name: str) -> str:
    """`name` as a Kubernetes object name: lower-case letters, digits and hyphens, 1 to 50 long."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-")
    return cleaned or "qtool-model"


def _queue(best: LoadLevel | None) -> int:
    """As many as are answered in ten seconds at the best measured load, and no more than a hundred: a longer queue
    outlives its clients, and a burst of longer answers than those timed must not fill it for minutes."""
    if best is None:
        return _DEFAULT_QUEUE
    return min(max(math.ceil(best.requests_per_second * _PATIENCE_SECONDS), _DEFAULT_BATCH), _DEFAULT_QUEUE)


def _highest(level: LoadLevel | None) -> Quantile | None:
    """The highest quantile of the time to answer that the sample was large enough for."""
    known = [entry for entry in (level.e2e if level else ()) if entry.value_ms is not None]
    return max(known, key=lambda entry: entry.q, default=None)


def _p99(level: LoadLevel | None) -> float | None:
    entries = level.e2e if level else ()
    return next((entry.value_ms for entry in entries if abs(entry.q - 0.99) < 1e-9), None)


def _alert(level: LoadLevel | None) -> tuple[float, str]:
    """Twice the measured p99, four times the highest quantile that was measured, or two seconds where none was."""
    found = _highest(level)
    if found is None or found.value_ms is None or level is None:
        return _DEFAULT_ALERT_SECONDS, "2 s by default: the time to answer was not measured"
    factor, word = (2, "twice") if found.q >= _P99 else (4, "four times")
    text = f"{word} the p{100 * found.q:g} of {found.value_ms:.0f} ms measured at concurrency {level.concurrency}"
    return max(0.1, round(factor * found.value_ms / 1000, 2)), text
