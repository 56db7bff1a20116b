"""`qtool serve`: a bundle behind an OpenAI-compatible HTTP server."""

from pathlib import Path
from typing import Annotated

import typer

_DEFAULT_QUEUE = "Answers waiting for a place; more are refused with 503 (default: 100, or as measured)."


def command(
    bundle: Annotated[Path | None, typer.Argument(help="Folder that `qtool bundle` wrote.")] = None,
    upstream: Annotated[
        list[str] | None, typer.Option(help="Serve other OpenAI-compatible servers instead of a bundle (repeatable).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    admin_port: Annotated[int | None, typer.Option(help="Port for /metrics and /admin (default: the same).")] = None,
    keys: Annotated[Path | None, typer.Option(help="TOML file of API keys (default: everybody may ask).")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Certificate chain (PEM) for HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key (PEM) for HTTPS.")] = None,
    name: Annotated[str | None, typer.Option("--model-name", help="Model name clients ask for.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine (default: the fastest count, measured).")
    ] = None,
    engine: Annotated[str, typer.Option(help="qtool, or vllm where that is installed.")] = "qtool",
    require_signature: Annotated[
        Path | None, typer.Option(help="Refuse bundles not signed by the owner of this public key (PEM, Ed25519).")
    ] = None,
    max_running: Annotated[
        int | None, typer.Option(min=1, help="Answers generated together (default: as measured).")
    ] = None,
    max_queue: Annotated[int | None, typer.Option(min=0, help=_DEFAULT_QUEUE)] = None,
    queue_seconds: Annotated[
        float, typer.Option(min=0.01, help="Longest wait for a place; who would wait longer gets 503.")
    ] = 1.0,
    max_connections: Annotated[int, typer.Option(min=1, help="Open connections; more get 503.")] = 1000,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds a request may take; then 504.")] = 120.0,
    default_tokens: Annotated[
        int, typer.Option(min=1, help="Longest chat answer where the client gives no max_tokens.")
    ] = 512,
    drain: Annotated[float, typer.Option(min=0.0, help="Seconds that running requests get after SIGTERM.")] = 45.0,
    stall: Annotated[
        float, typer.Option(min=0.5, help="Seconds of silence after which the engine is restarted.")
    ] = 5.0,
    max_body_bytes: Annotated[int, typer.Option(min=1000, help="Largest request body; more is refused.")] = 2_000_000,
    canary: Annotated[Path | None, typer.Option(help="Bundle that answers a share of the requests.")] = None,
    canary_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of users the canary gets.")] = 0.1,
    canary_auto: Annotated[
        bool, typer.Option("--canary-auto", help="Promote or withdraw the canary when the sequential test decides.")
    ] = False,
    rung: Annotated[
        list[Path] | None, typer.Option(help="Bundle that answers when the ones before it cannot (repeatable).")
    ] = None,
    fallback_url: Annotated[
        list[str] | None, typer.Option(help="OpenAI-compatible server that answers when no bundle can (repeatable).")
    ] = None,
    breaker_p99: Annotated[
        float | None, typer.Option(help="Pass a variant over while its p99 is above this many seconds.")
    ] = None,
    breaker_quality: Annotated[
        float | None, typer.Option(help="Pass a variant over while its mean quality is below this.")
    ] = None,
    breaker_shadow: Annotated[
        float | None, typer.Option(help="Pass a variant over while its score against --reference is below this.")
    ] = None,
    samples: Annotated[Path | None, typer.Option(help="Folder for samples of the traffic (JSON lines).")] = None,
    sample_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of requests that is sampled.")] = 0.01,
    reference: Annotated[
        Path | None, typer.Option(help="Bundle that reads a share of the answers again, when it is idle.")
    ] = None,
    shadow_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of answers the reference reads.")] = 0.01,
    drift_rate: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of answers whose layer inputs are compared with calibration.")
    ] = 0.01,
    metrics_compat: Annotated[str | None, typer.Option(help="vllm: metrics under vLLM's names as well.")] = None,
    otel_endpoint: Annotated[
        str | None, typer.Option(help="OTLP/HTTP collector that gets traces (default: none are made).")
    ] = None,
) -> None:
    """Serve /v1/completions, /v1/chat/completions, /v1/models, /health, /ready and /metrics until told to stop."""
    from qtool.front_door.shipping import serve

    serve(
        bundle,
        upstream=upstream or (),
        host=host,
        port=port,
        admin_port=admin_port,
        keys=keys,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        model_name=name,
        device=device,
        threads=threads,
        engine=engine,
        require_signature=require_signature,
        max_running=max_running,
        max_queue=max_queue,
        queue_seconds=queue_seconds,
        max_connections=max_connections,
        deadline=deadline,
        default_tokens=default_tokens,
        drain=drain,
        stall=stall,
        max_body_bytes=max_body_bytes,
        canary=canary,
        canary_share=canary_share,
        canary_auto=canary_auto,
        rung=rung or (),
        fallback_url=fallback_url or (),
        breaker_p99=breaker_p99,
        breaker_quality=breaker_quality,
        breaker_shadow=breaker_shadow,
        samples=samples,
        sample_rate=sample_rate,
        reference=reference,
        shadow_rate=shadow_rate,
        drift_rate=drift_rate,
        metrics_compat=metrics_compat,
        otel_endpoint=otel_endpoint,
    )
