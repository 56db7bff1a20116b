"""`serve`: a bundle behind HTTP, ready only when it is what was measured."""

import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qtool.errors import QtoolError, UsageError
from qtool.records.bundle import Bundle
from qtool.serve.admission.keys import Keys, read_keys
from qtool.serve.http_server import HttpServer, is_loopback, listen
from qtool.serve.limits import Limits
from qtool.serve.options import Listening, Running, Serving, Watching
from qtool.serve.routing.breaker import Breaker
from qtool.serve.signature import verify_signature
from qtool.store import layout

if TYPE_CHECKING:
    from qtool.serve.deployment import Deployment
    from qtool.serve.routing.router import Router
    from qtool.serve.routing.vllm import VllmEngine
    from qtool.serve.watching.second_look import SecondLook
    from qtool.serve.watching.tracing import Tracing

_log = logging.getLogger("qtool.serve")


class Unfinished(QtoolError):
    """The server ended before all requests had their answers."""

    exit_code = 1


def serve(bundle: Path | None, serving: Serving, *, upstream: Sequence[str] = ()) -> None:
    """Serves `bundle`, or the servers at `upstream` behind the same gateway, until told to stop.

    Raises QtoolError when it cannot or may not be served, or lost requests.
    """
    from qtool.serve.service import Service
    from qtool.serve.watching.sampling import Samples

    listening, watching = serving.listening, serving.watching
    failures: list[QtoolError] = []
    leave: list[Callable[[], None]] = []

    def stop(reason: str, exit_code: int) -> None:
        failures.append(_error(reason, exit_code))
        leave[0]()

    keys = read_keys(listening.keys) if listening.keys is not None else Keys()
    if not keys.required and not is_loopback(listening.host):
        _log.warning("listening on %s without API keys: everybody who reaches this address may ask", listening.host)
    with contextlib.ExitStack() as stack:
        tracing = _tracing(watching, stack)
        listeners = _listeners(listening, stack)
        admin_port = listeners[1].getsockname()[1] if len(listeners) > 1 else None
        service = Service(router(bundle, serving, upstream=upstream, on_failure=stop), keys, admin_port)
        if watching.samples is not None:
            service.samples = Samples(watching.samples, rate=watching.sample_rate)
        service.vllm_metrics = watching.vllm_metrics
        service.tracing = tracing
        service.second_look = _second_look(serving)
        server = HttpServer(service, listening)
        leave.append(server.leave)
        place = listeners[0].getsockname()
        scheme = "https" if listening.tls_certificate else "http"
        variants = ", ".join(backend.variant for backend in service.router.backends)
        _log.info("serving %s (%s) on %s://%s:%s", service.model, variants, scheme, *place[:2])
        server.run(listeners)
    if failures:
        raise failures[0]
    if server.lost:
        raise Unfinished(f"{server.lost} requests were told to come again: the server left before they were answered")


def _second_look(serving: Serving) -> "SecondLook":
    """Reads answers again, for drift and with the reference where there is one."""
    from qtool.serve.watching.second_look import Rates, SecondLook

    watching = serving.watching
    reference = None if watching.reference is None else _rung(watching.reference, serving, _other_failed)
    return SecondLook(reference, Rates(watching.drift_rate, watching.shadow_rate))


def _tracing(watching: Watching, stack: contextlib.ExitStack) -> "Tracing | None":
    """Traces for the collector that was named, closed with `stack`; None where there is none."""
    if watching.otel_endpoint is None:
        return None
    from qtool.serve.watching.tracing import open_tracing

    tracing = open_tracing(watching.otel_endpoint)
    stack.callback(tracing.close)
    return tracing


def _listeners(listening: Listening, stack: contextlib.ExitStack) -> list[socket.socket]:
    ports = [listening.port] if listening.admin_port is None else [listening.port, listening.admin_port]
    return [stack.enter_context(listen(listening.host, port)) for port in ports]


def router(
    bundle: Path | None,
    serving: Serving,
    *,
    upstream: Sequence[str] = (),
    on_failure: Callable[[str, int], None] = lambda reason, exit_code: None,
) -> "Router":
    """All variants that answer, none started yet. Only the first one's failure ends the server."""
    from qtool.serve.routing.canary import Canary
    from qtool.serve.routing.router import Backend, Router
    from qtool.serve.routing.upstream import Upstream

    routing = serving.routing
    if (bundle is None) == (not upstream):
        raise UsageError("give either a bundle or --upstream")
    rungs: list[Backend] = []
    if bundle is not None:
        first = _vllm(bundle, serving) if serving.running.engine == "vllm" else _rung(bundle, serving, on_failure)
        rungs.append(first)
    else:
        rungs.append(Upstream(serving.name, upstream, serving.limits or Limits()))
    model = rungs[0].model
    below = replace(serving, name=model)
    rungs += [_rung(folder, below, _other_failed) for folder in routing.rungs]
    if routing.fallback_urls:
        rungs.append(Upstream(model, routing.fallback_urls, rungs[0].limits, variant="fallback"))
    candidate = _rung(routing.canary, below, _other_failed) if routing.canary is not None else None
    canary = None
    if candidate is not None:
        canary = Canary(
            share=routing.canary_share,
            margin=routing.margin,
            alpha=routing.alpha,
            automatic=routing.canary_automatic,
        )
    found = Router(rungs, candidate=candidate, canary=canary)
    names = [backend.variant for backend in found.backends]
    if len(set(names)) < len(names):
        raise UsageError(f"two variants have the same name ({', '.join(names)}); answers could not be told apart")
    for backend in found.backends:
        backend.breaker = Breaker(routing.breaker)
    return found


def _rung(folder: Path, serving: Serving, on_failure: Callable[[str, int], None]) -> "Deployment":
    from qtool.serve.supervision.gate import read_bundle

    if serving.running.public_key is not None:
        verify_signature(folder, serving.running.public_key)
    manifest = read_bundle(folder)
    return deploy(
        folder, manifest, name=serving.name, limits=serving.limits, running=serving.running, on_failure=on_failure
    )


def _vllm(folder: Path, serving: Serving) -> "VllmEngine":
    """The bundle behind vLLM, verified as for qtool's own engine; golden prompts are not compared."""
    from qtool.serve.routing.vllm import VllmEngine, vllm_command
    from qtool.serve.supervision.gate import read_bundle, verify_files

    if serving.running.public_key is not None:
        verify_signature(folder, serving.running.public_key)
    manifest = read_bundle(folder)
    verify_files(folder, manifest)
    limits, model = serving.limits or default_limits(manifest), serving.name or manifest.name
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    command = vllm_command(folder, model, port, limits=limits, context_tokens=manifest.runtime.context_tokens)
    return VllmEngine(command, model, port, limits, variant=manifest.variant.name)


def _other_failed(reason: str, exit_code: int) -> None:
    _log.error("a further variant failed and is passed over: %s", reason)


def deploy(
    folder: Path,
    bundle: Bundle,
    *,
    name: str | None = None,
    limits: Limits | None = None,
    running: Running | None = None,
    on_failure: Callable[[str, int], None] = lambda reason, exit_code: None,
) -> "Deployment":
    """The deployment of a bundle, not yet started."""
    from qtool.serve.deployment import Deployment, Identity, Parts
    from qtool.serve.supervision.hosts import ProcessHost
    from qtool.serve.supervision.opening import opening
    from qtool.serve.supervision.threads import environment
    from qtool.serve.text.vocabulary import BundleVocabulary
    from qtool.serve.watching.drift import Drift, calibrated_layers

    limits = limits or default_limits(bundle)
    running = running or Running()
    how = opening(folder, slots=limits.max_running, device=running.device, threads=running.threads)
    deployment = Deployment(
        Identity(
            name or bundle.name,
            bundle.variant.name,
            f"qtool-{bundle.variant.weights_digest[:12]}",
            int((folder / layout.BUNDLE).stat().st_mtime),
        ),
        Parts(lambda: BundleVocabulary(folder), lambda: ProcessHost(how, environment(running.threads))),
        limits,
        on_failure=on_failure,
    )
    layers = calibrated_layers(folder, bundle)
    if layers:
        deployment.drift = Drift(layers, deployment.metrics)
    baseline = _evaluated_quality(bundle)
    if baseline is not None:
        deployment.metrics.quality_baseline(baseline)
    return deployment


def _evaluated_quality(bundle: Bundle) -> float | None:
    """Expected acceptance over the tasks of the evaluation, by tokens; None where none was measured."""
    if bundle.report_row is None:
        return None
    agreements = [each.agreement for each in bundle.report_row.evaluations if each.agreement is not None]
    measured = [
        (each.expected_acceptance, each.kl_tokens) for each in agreements if each.expected_acceptance is not None
    ]
    tokens = sum(count for _, count in measured)
    return sum(value * count for value, count in measured) / tokens if tokens else None


def default_limits(bundle: Bundle) -> Limits:
    """The server's limits, with as many answers together as were measured to be best.

    The bundle's `max_queue` counts what the measuring machine answered in ten seconds: here only time bounds a queue.
    """
    limits = Limits()
    return replace(
        limits, max_running=bundle.runtime.max_batch, max_queue=min(bundle.runtime.max_queue, limits.max_queue)
    )


def _error(reason: str, exit_code: int) -> QtoolError:
    """The failure of an engine's process, as the error that it was there."""
    error = QtoolError(reason)
    error.exit_code = exit_code
    return error
