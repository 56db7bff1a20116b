"""`qtool.run`, `demo`, `bundle`, `verify` and `serve`: from a plan to a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import ClassVar

from qtool.errors import UsageError
from qtool.front_door.paths import PathLike, optional_path
from qtool.front_door.threads import on_threads
from qtool.progress import chosen_progress
from qtool.records.bundle import Bundle
from qtool.records.plan import Plan
from qtool.records.presentation import Presented
from qtool.records.report import Report
from qtool.store.layout import RunFolder


@on_threads
def run(
    plan: PathLike | Plan,
    *,
    output: PathLike | None = None,
    items: int | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> Report:
    """Carries out a plan, a file or a record, in the folder `output` (runs/<name of the plan>): calibrates, quantizes,
    evaluates, times, reports and bundles. Resumes, and skips what is unchanged."""
    from qtool.pipeline import stages
    from qtool.pipeline.plan import read_plan

    asked = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    folder = optional_path(output) or Path("runs") / asked.name
    return stages.run(asked, folder, progress=chosen_progress(quiet), command=_command(), limit=items)


@on_threads
def demo(
    *, output: PathLike = Path("runs/demo"), items: int | None = None, threads: int | None = None, quiet: bool = False
) -> Report:
    """Runs the shipped demo plan on a bundled reference model."""
    from importlib.resources import as_file, files

    from qtool.pipeline.plan import read_plan

    with as_file(files("qtool.reference") / "demo.toml") as path:
        plan = read_plan(path)
    return run(plan, output=output, items=items, threads=threads, quiet=quiet)


def bundle(
    run: PathLike,
    *,
    variant: str | None = None,
    output: PathLike | None = None,
    replace: bool = False,
    allow_unverified: bool = False,
    quiet: bool = False,
) -> Bundle:
    """Writes weights, tokenizer, golden prompts, settings, model card and deployment files of the recommended variant,
    or of the one named, to the new folder `output` (RUN/bundle)."""
    from qtool.bundle.stage import bundle as write

    target = optional_path(output) or RunFolder(Path(run)).bundle
    return write(
        Path(run),
        variant=variant,
        output=target,
        progress=chosen_progress(quiet),
        replace=replace,
        allow_unverified=allow_unverified,
    )


@dataclass(frozen=True, slots=True, repr=False)
class Verified(Presented):
    """A bundle that is whole and reproduces its golden prompts; `documents` were edited since, which stops nothing."""

    SHOWN: ClassVar[tuple[str, ...]] = ("name", "prompts", "difference")

    name: str
    backend: str
    files: int
    bytes: int
    prompts: int
    difference: float
    documents: tuple[str, ...]

    def table(self) -> str:
        """What was compared, in a few lines."""
        lines = [
            f"{self.name}: {self.files} files, {self.bytes:,} bytes, each with the digest in bundle.json",
            f"{self.prompts} golden prompts reproduced by {self.backend} within {self.difference:.2g} nats",
        ]
        return "\n".join([*lines, *(f"edited since it was made: {path}" for path in self.documents)])


@on_threads
def verify(
    bundle: PathLike, *, backend: str = "qtool", device: str = "auto", threads: int | None = None, quiet: bool = False
) -> Verified:
    """Checks every file of a bundle and has `backend` answer its golden prompts. Raises MismatchError where a file or
    an answer is not what was recorded."""
    from qtool.engine.load import open_engine
    from qtool.serve.supervision.gate import changed_documents, read_bundle, reproduce, verify_files

    folder = Path(bundle)
    manifest = read_bundle(folder)
    with chosen_progress(quiet).track("verify", 2, "steps") as advance:
        verify_files(folder, manifest)
        advance(1)
        engine = open_engine(
            folder,
            backend=backend,
            dtype=manifest.runtime.dtype,
            device=device,
            slots=manifest.runtime.max_batch,
            context_tokens=manifest.runtime.context_tokens,
        )
        try:
            difference = reproduce(engine, manifest)
        finally:
            engine.close()
        advance(1)
    return Verified(
        name=manifest.name,
        backend=backend,
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files),
        prompts=len(manifest.golden),
        difference=difference,
        documents=changed_documents(folder, manifest),
    )


def serve(
    bundle: PathLike | None = None,
    *,
    upstream: Sequence[str] = (),
    host: str = "127.0.0.1",
    port: int = 8000,
    admin_port: int | None = None,
    keys: PathLike | None = None,
    tls_certificate: PathLike | None = None,
    tls_key: PathLike | None = None,
    model_name: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    engine: str = "qtool",
    require_signature: PathLike | None = None,
    max_running: int | None = None,
    max_queue: int | None = None,
    queue_seconds: float = 1.0,
    max_connections: int = 1000,
    deadline: float = 120.0,
    default_tokens: int = 512,
    drain: float = 45.0,
    stall: float = 5.0,
    max_body_bytes: int = 2_000_000,
    canary: PathLike | None = None,
    canary_share: float = 0.1,
    canary_auto: bool = False,
    rung: Sequence[PathLike] = (),
    fallback_url: Sequence[str] = (),
    breaker_p99: float | None = None,
    breaker_quality: float | None = None,
    breaker_shadow: float | None = None,
    samples: PathLike | None = None,
    sample_rate: float = 0.01,
    reference: PathLike | None = None,
    shadow_rate: float = 0.01,
    drift_rate: float = 0.01,
    metrics_compat: str | None = None,
    otel_endpoint: str | None = None,
) -> None:
    """Serves a bundle, or other servers (`upstream`), behind an OpenAI-compatible HTTP server until told to stop."""
    from qtool.serve.limits import Limits
    from qtool.serve.options import Listening, Routing, Running, Serving, Watching
    from qtool.serve.routing.breaker import Thresholds
    from qtool.serve.stage import default_limits
    from qtool.serve.stage import serve as listen
    from qtool.serve.supervision.gate import read_bundle
    from qtool.serve.watching.log import configure

    if metrics_compat not in (None, "vllm"):
        raise UsageError(f"metrics_compat is {metrics_compat!r}; the one other naming is vllm")
    if engine not in ("qtool", "vllm"):
        raise UsageError(f"engine is {engine!r}; known: qtool, vllm")
    limits = default_limits(read_bundle(Path(bundle))) if bundle is not None else Limits()
    configure()
    limits = replaced(
        limits,
        max_running=max_running or limits.max_running,
        max_queue=limits.max_queue if max_queue is None else max_queue,
        queue_seconds=queue_seconds,
        max_connections=max_connections,
        deadline_seconds=deadline,
        default_tokens=default_tokens,
        drain_seconds=drain,
        stall_seconds=stall,
        max_body_bytes=max_body_bytes,
    )
    routing = Routing(
        canary=optional_path(canary),
        canary_share=canary_share,
        canary_automatic=canary_auto,
        rungs=tuple(Path(folder) for folder in rung),
        fallback_urls=tuple(fallback_url),
        breaker=Thresholds(p99_seconds=breaker_p99, quality=breaker_quality, shadow=breaker_shadow),
    )
    files = (optional_path(keys), optional_path(tls_certificate), optional_path(tls_key))
    serving = Serving(
        listening=Listening(host, port, admin_port, *files),
        running=Running(device, threads, "vllm" if engine == "vllm" else "qtool", optional_path(require_signature)),
        routing=routing,
        watching=Watching(
            samples=optional_path(samples),
            sample_rate=sample_rate,
            reference=optional_path(reference),
            shadow_rate=shadow_rate,
            drift_rate=drift_rate,
            vllm_metrics=metrics_compat == "vllm",
            otel_endpoint=otel_endpoint,
        ),
        name=model_name,
        limits=limits,
    )
    listen(optional_path(bundle), serving, upstream=upstream)


def _command() -> str:
    """What was typed, for the report: the program's arguments, or that it was called from Python."""
    import shlex
    import sys

    typed = Path(sys.argv[0]).name in ("qtool", "__main__.py")
    return shlex.join(["qtool", *sys.argv[1:]]) if typed else "qtool.run(...) in Python"
