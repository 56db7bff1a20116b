"""Times variants side by side, A B A B, so that a machine that drifts drifts for all of them."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from qtool import __version__
from qtool.engine.load import open_engine
from qtool.errors import UsageError
from qtool.latency.bench_serve import bench_serve
from qtool.latency.cold_start import ColdStart, Trial, cold_start
from qtool.latency.roofline import bandwidth_share, step_bytes
from qtool.latency.rounds import Subject, label, requests_at, time_level
from qtool.latency.timing import Limits, Load, summarize
from qtool.machine.state import load_average, machine_state, measured_bandwidth
from qtool.progress import Progress
from qtool.records.latency import LatencyProfile
from qtool.records.place import Place, Server
from qtool.records.plan import LatencySettings
from qtool.records.variant import Variant
from qtool.store import layout
from qtool.store.codec import read_json
from qtool.store.run_directory import write_record

FORMAT_VERSION = 1


def measure(
    variants: Mapping[str, Place],
    settings: LatencySettings,
    output: Path,
    *,
    progress: Progress,
    dtype: str = "auto",
    device: str = "auto",
    backend: str = "qtool",
    limits: Limits | None = None,
    rates: tuple[float, ...] = (),
) -> tuple[LatencyProfile, ...]:
    """A profile for each variant, written to output/<variant>.json, its raw samples to output/<variant>.samples.json,
    and both under vLLM's names to output/<variant>.bench_serve.json.

    Closed load at each concurrency of `settings`, open load at each of `rates` (requests per second). Cold start and
    peak memory come from a fresh process a variant. Raises UsageError when prompts do not fit a model's context.
    """
    kept = limits or Limits()
    if backend == "openai" and not all(isinstance(place, Server) for place in variants.values()):
        raise UsageError("backend openai times a server: give its URL where the variant stands")
    loads = [Load(level) for level in settings.concurrency] + [Load(max(settings.concurrency), rate) for rate in rates]
    before = load_average()
    most = max(settings.concurrency)
    trial = Trial(most, settings.prompt_tokens, settings.output_tokens, backend, dtype, device)
    starts: dict[str, ColdStart] = {}
    with progress.track("cold starts", len(variants), "variants") as advance:
        for name, place in variants.items():
            starts[name] = ColdStart(0.0, 0.0, 0) if isinstance(place, Server) else cold_start(place, trial)
            advance(1)
    subjects = [
        Subject(name, place, open_engine(place, backend=backend, dtype=dtype, device=device, slots=most))
        for name, place in variants.items()
    ]
    try:
        _check_fit(subjects, settings)
        _note_slots(subjects, most)
        with progress.track(
            "timing", len(subjects) * sum(requests_at(load, settings) for load in loads), "requests"
        ) as advance:
            for load in loads:
                time_level(subjects, load, settings, advance)
        local = [subject for subject in subjects if not isinstance(subject.place, Server)]
        bandwidth = measured_bandwidth(local[0].engine.device) if local else 0.0
        profiles = tuple(
            _profile(subject, loads, starts[subject.name], before, bandwidth, kept) for subject in subjects
        )
    finally:
        for subject in subjects:
            subject.engine.close()
    for subject, profile in zip(subjects, profiles, strict=True):
        samples = {label(load): subject.timed[load] for load in loads}
        write_record(output / f"{subject.name}.samples.json", samples)
        served = {label(load): bench_serve(load, subject.timed[load], subject.seconds[load], kept) for load in loads}
        write_record(output / f"{subject.name}.bench_serve.json", served)
        write_record(output / f"{subject.name}.json", profile)
    return profiles


def _check_fit(subjects: list[Subject], settings: LatencySettings) -> None:
    needed = settings.prompt_tokens + settings.output_tokens
    for subject in subjects:
        context = subject.engine.status().context_tokens
        if needed > context:
            raise UsageError(
                f"{subject.name}: {settings.prompt_tokens} prompt and {settings.output_tokens} output tokens exceed "
                f"the context of {context} tokens; time shorter ones"
            )


def _profile(
    subject: Subject,
    loads: list[Load],
    start: ColdStart,
    load_before: float,
    bandwidth: float,
    limits: Limits,
) -> LatencyProfile:
    engine = subject.engine
    kernels = Counter(label for _, label in engine.kernels)
    levels = tuple(summarize(load, subject.timed[load], subject.seconds[load], limits) for load in loads)
    return LatencyProfile(
        format_version=FORMAT_VERSION,
        variant=subject.name,
        variant_digest=_digest(subject.place),
        machine=machine_state(engine.device, load_before),
        levels=levels,
        load_seconds=start.load_seconds,
        first_token_seconds=start.first_token_seconds,
        peak_memory_bytes=start.peak_memory_bytes,
        weight_bytes=engine.weight_bytes,
        kernels=tuple((label, f"{count} layers") for label, count in sorted(kernels.items())),
        simulated=engine.simulated,
        qtool_version=__version__,
        cache_bytes=engine.cache_bytes,
        bandwidth_bytes_per_second=bandwidth or None,
        roofline_ratio=bandwidth_share(levels, step_bytes(subject.place, engine.weight_bytes), bandwidth),
        notes=(*engine.notes, *subject.notes),
        peak_gpu_bytes=start.peak_gpu_bytes,
        dtype=engine.dtype,
    )


def _note_slots(subjects: list[Subject], most: int) -> None:
    for subject in subjects:
        slots = subject.engine.status().slots
        if slots < most:
            subject.notes.append(
                f"{slots} requests run at once here; above that they wait, and waiting is in the times"
            )


def _digest(folder: Place) -> str:
    if isinstance(folder, Server):
        return ""
    if (folder / layout.VARIANT).is_file():
        return read_json(Variant, folder / layout.VARIANT).weights_digest
    from qtool.models.checkpoint import weights_digest

    return weights_digest(folder)
