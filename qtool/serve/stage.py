"""`serve`: a bundle behind HTTP, ready only when it is what was measured."""

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qtool.engine.contract import Engine
from qtool.errors import CapacityError, QtoolError, UsageError
from qtool.records.bundle import Bundle
from qtool.serve.app import build
from qtool.serve.deployment import Deployment, Parts
from qtool.serve.gate import read_bundle, reproduce, verify_files, warm_up
from qtool.serve.limits import Limits
from qtool.serve.vocabulary import BundleVocabulary, Vocabulary

_log = logging.getLogger("qtool.serve")
_LARGEST_HEADERS_BYTES = 64 * 1024


def serve(
    bundle: Path,
    *,
    host: str,
    port: int,
    name: str | None = None,
    limits: Limits | None = None,
    device: str = "auto",
) -> None:
    """Serves `bundle` until told to stop. Raises QtoolError when it cannot or may not be served."""
    import uvicorn

    manifest = read_bundle(bundle)
    listener = listen(host, port)
    server: uvicorn.Server
    reasons: list[str] = []

    def stop(reason: str) -> None:
        reasons.append(reason)
        server.should_exit = True

    deployment = deploy(bundle, manifest, name=name, limits=limits, device=device, on_failure=stop)
    app = build(deployment, on_start=lambda: _drain_on_signals(deployment, lambda: _exit(server)))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_LARGEST_HEADERS_BYTES,
        http="h11",
        loop="asyncio",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    place = listener.getsockname()
    _log.info(f"serving {deployment.model} ({deployment.variant}) on http://{place[0]}:{place[1]}")
    with listener:
        server.run(sockets=[listener])
    if deployment.worker.failure is not None:
        raise deployment.worker.failure
    if reasons:
        raise QtoolError(reasons[0])
    if deployment.worker.alive:  # asked to stop while loading: such a call cannot be interrupted, only left
        logging.shutdown()
        os._exit(0)


def deploy(
    folder: Path,
    bundle: Bundle,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    device: str = "auto",
    on_failure: Callable[[str], None] = lambda reason: None,
) -> Deployment:
    """The deployment of a bundle, not yet started."""
    limits = limits or default_limits(bundle)

    def open_engine() -> Engine:
        from qtool.engine.load import open_engine as open_

        runtime = bundle.runtime
        engine = open_(
            folder, dtype=runtime.dtype, device=device, slots=limits.max_running, context_tokens=runtime.context_tokens
        )
        for note in engine.notes:
            _log.warning(note)
        return engine

    def open_vocabulary() -> Vocabulary:
        return BundleVocabulary(folder)

    def check(engine: Engine) -> None:
        worst = reproduce(engine, bundle)
        _log.info(f"{len(bundle.golden)} golden prompts reproduced within {worst:.2g} nats")

    return Deployment(
        model=name or bundle.name,
        variant=bundle.variant.name,
        fingerprint=f"qtool-{bundle.variant.weights_digest[:12]}",
        created=int((folder / "bundle.json").stat().st_mtime),
        limits=limits,
        parts=Parts(
            verify=lambda: verify_files(folder, bundle),
            open_vocabulary=open_vocabulary,
            open_engine=open_engine,
            reproduce=check,
            warm_up=lambda engine: warm_up(engine, bundle),
        ),
        on_failure=on_failure,
    )


def default_limits(bundle: Bundle) -> Limits:
    """Limits as the bundle's measured runtime settings say."""
    return replace(Limits(), max_running=bundle.runtime.max_batch, max_queue=bundle.runtime.max_queue)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises CapacityError when the port is taken, UsageError when it cannot be had."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        # without the protocol asyncio does not set TCP_NODELAY, and every answer waits 40 ms for an acknowledgement
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CapacityError(
                f"port {port} on {host} is in use; stop what holds it or choose another --port"
            ) from error
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _drain_on_signals(deployment: Deployment, leave: Callable[[], None]) -> None:
    """First signal: refuse new work, finish what runs, then leave. Second: leave at once."""
    loop = asyncio.get_running_loop()
    tasks: list[asyncio.Task[None]] = []

    async def drain() -> None:
        began = time.monotonic()
        deployment.drain()
        _log.info(f"draining: {deployment.admission.admitted} choices in progress")
        await deployment.drained()
        _log.info(f"drained in {time.monotonic() - began:.1f} s, {deployment.admission.admitted} choices left")
        leave()

    def stop() -> None:
        if tasks:
            leave()
        else:
            tasks.append(loop.create_task(drain()))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _exit(server: object) -> None:
    import uvicorn

    assert isinstance(server, uvicorn.Server)
    server.should_exit = True
