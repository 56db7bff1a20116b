"""What a server may be told: where it listens, how its engine runs, who else answers, what is watched."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from qtool.serve.limits import Limits
from qtool.serve.routing.breaker import Thresholds


@dataclass(frozen=True, slots=True)
class Listening:
    """Where clients reach the server, and with what: a file of keys, TLS, a port apart for metrics."""

    host: str = "127.0.0.1"
    port: int = 8000
    admin_port: int | None = None
    keys: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """How the engine runs: its device, and its threads (None: as many as are fastest); whether it is qtool's own or
    vLLM, where that is installed. A bundle must be signed by the owner of `public_key`, where there is one."""

    device: str = "auto"
    threads: int | None = None
    engine: Literal["qtool", "vllm"] = "qtool"
    public_key: Path | None = None


@dataclass(frozen=True, slots=True)
class Routing:
    """Who else answers: a canary beside the bundle, further rungs below it, servers to fall back to.

    `margin` is the loss of quality that a canary may have, `alpha` the risk of deciding wrongly.
    """

    canary: Path | None = None
    canary_share: float = 0.1
    canary_automatic: bool = False
    margin: float = 0.02
    alpha: float = 0.05
    rungs: tuple[Path, ...] = ()
    fallback_urls: tuple[str, ...] = ()
    breaker: Thresholds = field(default_factory=Thresholds)


@dataclass(frozen=True, slots=True)
class Watching:
    """What is kept of the traffic: samples in a folder, for a share of the requests; answers that are looked at again
    for drift, and compared with what `reference` (a bundle) would have said; whether metrics have vLLM's names too;
    the OpenTelemetry collector that gets traces."""

    samples: Path | None = None
    sample_rate: float = 0.01
    reference: Path | None = None
    shadow_rate: float = 0.01
    drift_rate: float = 0.01
    vllm_metrics: bool = False
    otel_endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that `serve` may be told beside the bundle."""

    listening: Listening = field(default_factory=Listening)
    running: Running = field(default_factory=Running)
    routing: Routing = field(default_factory=Routing)
    watching: Watching = field(default_factory=Watching)
    name: str | None = None
    limits: Limits | None = None
