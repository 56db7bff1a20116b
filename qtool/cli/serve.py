"""`qtool serve`: a bundle behind an OpenAI-compatible HTTP server."""

from pathlib import Path
from typing import Annotated

import typer

_DEFAULT_QUEUE = "Answers waiting for a place; more are refused with 503 (default: 100, or as measured)."


def command(
    bundle: Annotated[Path, typer.Argument(help="Folder that `qtool bundle` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8000,
    name: Annotated[str | None, typer.Option("--model-name", help="Model name clients ask for.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine (default: the fastest count, measured).")
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
) -> None:
    """Serve /v1/completions, /v1/chat/completions, /v1/models, /health, /ready and /metrics until told to stop."""
    from qtool.front_door.shipping import serve

    serve(
        bundle,
        host=host,
        port=port,
        model_name=name,
        device=device,
        threads=threads,
        max_running=max_running,
        max_queue=max_queue,
        queue_seconds=queue_seconds,
        max_connections=max_connections,
        deadline=deadline,
        default_tokens=default_tokens,
        drain=drain,
        stall=stall,
        max_body_bytes=max_body_bytes,
    )
