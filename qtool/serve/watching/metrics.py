"""What Prometheus sees: names of our own, edges chosen for the alerts, sheds and aborts apart from errors."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Metric, generate_latest

from qtool.serve.api.refusal import Outcome
from qtool.serve.supervision.messages import Beat
from qtool.serve.watching.load import Waits, gauges_of
from qtool.serve.watching.vllm_names import with_vllm_names

_LABELS = ("model", "variant")
_LAYER = (*_LABELS, "layer")
_OUTCOMES: tuple[Outcome, ...] = ("success", "client_error", "server_error", "shed", "deadline", "aborted")
# 2.0 is an edge because the alert is on two seconds: a quantile must not be interpolated across its threshold
_DURATION = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
# starts at half a millisecond: an 8B model on one accelerator decodes at 4 to 8 ms, below vLLM's first edge of 10
_SHORT = (0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1)
_BETWEEN = (*_SHORT, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2.5, 5)
_QUEUE = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 60)
_STEP = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def exposition(variants: "Sequence[Metrics]", *, vllm: bool = False, more: Sequence[CollectorRegistry] = ()) -> bytes:
    """The series of all `variants` in Prometheus' text format, each name described once; with `vllm` under vLLM's names
    as well."""
    return generate_latest(_Together([*(variant.registry for variant in variants), *more], vllm=vllm))


class _Together:
    """Several registries as one: series of the same name belong together in the text."""

    def __init__(self, registries: Sequence[CollectorRegistry], *, vllm: bool) -> None:
        self._registries = registries
        self._vllm = vllm

    def collect(self) -> Iterator[Metric]:
        """Every metric once, with the samples of all variants."""
        found: dict[str, Metric] = {}
        for registry in self._registries:
            for metric in registry.collect():
                known = found.setdefault(metric.name, metric)
                if known is not metric:
                    known.samples.extend(metric.samples)
        yield from with_vllm_names(found.values()) if self._vllm else found.values()


class Load(Protocol):
    """Where the gauges read: the worker."""

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def beat(self) -> Beat: ...


class Metrics:
    """All series of one served variant, in a registry of its own."""

    def __init__(self, model: str, variant: str, fingerprint: str) -> None:
        self._registry = self.registry = CollectorRegistry()
        self.variant = variant
        self._labels = labels = (model, variant)
        requests = self._counter("qtool_requests", "Requests by how they ended.", "class")
        self._requests = {outcome: requests.labels(*labels, outcome) for outcome in _OUTCOMES}
        self._prompt = self._counter("qtool_prompt_tokens", "Prompt tokens of answered requests.").labels(*labels)
        self._generated = self._counter("qtool_generation_tokens", "Tokens generated.").labels(*labels)
        self._finished = self._counter("qtool_choices", "Choices by finish reason.", "finished_reason")
        self._duration = self._histogram("qtool_request_duration_seconds", "Arrival to last token.", _DURATION)
        self._first = self._histogram("qtool_time_to_first_token_seconds", "Arrival to first token.", _FIRST)
        self._between = self._histogram("qtool_inter_token_latency_seconds", "Between tokens of a choice.", _BETWEEN)
        self._queue = self._histogram("qtool_request_queue_time_seconds", "Arrival to joining the batch.", _QUEUE)
        self._waits = Waits()
        p99 = self._gauge("qtool_request_queue_time_p99_seconds", "99 of 100 of the last five minutes waited less.")
        p99.set_function(self._waits.p99)
        by_class = self._counter("qtool_key_class_requests", "Requests by class of the API key.", "key_class", "class")
        self._by_class = by_class
        self._class_tokens = self._counter("qtool_key_class_tokens", "Tokens by class of the API key.", "key_class")
        self._per_token = self._histogram(
            "qtool_time_per_output_token_seconds",
            "First to last token, per token after the first.",
            _BETWEEN,
        )
        self._prefill = self._histogram("qtool_prefill_seconds", "Joining the batch to first token.", _FIRST)
        self._decode = self._histogram("qtool_decode_seconds", "First to last token of a choice.", _DURATION)
        self._shadowed = self._counter("qtool_shadow_answers", "Answers read again by the reference.").labels(*labels)
        self._quality = self._gauge("qtool_quality_score", "Expected acceptance: sum of min(p, q) with the reference.")
        self._baseline = self._gauge("qtool_quality_baseline", "Expected acceptance when the bundle was evaluated.")
        self._agreement = self._gauge("qtool_shadow_agreement", "Places where the reference prefers the same token.")
        self._kl = self._gauge("qtool_shadow_kl_nats", "KL(reference || variant), per token.")
        self._lost = self._counter("qtool_second_looks_lost", "Sampled answers not looked at twice.").labels(*labels)
        self._psi = Gauge("qtool_drift_psi", "Live inputs against calibrated ones.", _LAYER, registry=self._registry)
        self._clip = Gauge("qtool_drift_clip_ratio", "Inputs outside of the range.", _LAYER, registry=self._registry)
        self._drifted = self._gauge("qtool_drift_alarm", "1 while traffic has left what was calibrated.")
        self._choices = self._histogram("qtool_request_choices", "Choices a request asks for.", _STEP)
        self._restarts = self._counter("qtool_engine_deaths", "Engines that died or hung.").labels(*labels)
        self._damaged = self._counter("qtool_damaged_answers", "Answers with a sign of damage.", "fault")
        self._other = self._gauge("qtool_kernels_differ", "1 while other kernels serve than were timed.")
        self._ready = self._gauge("qtool_ready", "1 while /ready answers 200.")
        info = Info("qtool_serving", "What is served.", registry=self._registry)
        info.info({"model": model, "variant": variant, "system_fingerprint": fingerprint})

    def follow(self, load: Load, *, slots: int = 0, queue: int = 0) -> None:
        """Gauges read `load` whenever they are scraped; `slots` and `queue` are the limits beside them."""
        self._gauge("qtool_slots", "Choices that run at once at most.").set(slots)
        self._gauge("qtool_queue_capacity", "Choices that wait at most.").set(queue)
        running = self._gauge("qtool_requests_running", "Choices in the batch.")
        running.set_function(lambda: load.running)
        waiting = self._gauge("qtool_requests_waiting", "Choices admitted and not yet in the batch.")
        waiting.set_function(lambda: load.waiting)
        steps = self._gauge("qtool_engine_steps", "Steps the engine has taken since it started.")
        steps.set_function(lambda: load.steps)
        gauges_of(lambda: load.beat, self._registry, _LABELS, self._labels)

    def ended(self, outcome: Outcome) -> None:
        """Counts one request, once."""
        self._requests[outcome].inc()

    def ended_for(self, key_class: str, outcome: Outcome, tokens: int) -> None:
        """Counts a request, and the tokens it used, for the class of its key."""
        self._by_class.labels(*self._labels, key_class, outcome).inc()
        self._class_tokens.labels(*self._labels, key_class).inc(tokens)

    def answered(self, seconds: float, choices: int) -> None:
        """An admitted request has its end after `seconds`: an answer, a failure, or its deadline."""
        self._duration.observe(seconds)
        self._choices.observe(choices)

    def tokens(self, prompt: int, generated: int) -> None:
        """Tokens of one request, complete or not."""
        self._prompt.inc(prompt)
        self._generated.inc(generated)

    def finished(self, reason: str) -> None:
        """How one choice ended."""
        self._finished.labels(*self._labels, reason).inc()

    def queued(self, seconds: float) -> None:
        """A choice joined the batch."""
        self._queue.observe(seconds)
        self._waits.add(seconds)

    def first_token(self, seconds: float) -> None:
        """A choice has its first token."""
        self._first.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """A choice has another token."""
        self._between.observe(seconds)

    def damaged(self, fault: str) -> None:
        """An answer shows a sign of damage."""
        self._damaged.labels(*self._labels, fault).inc()

    def other_kernels(self, differ: bool) -> None:
        """Whether other kernels serve than those that the bundle's times were measured with."""
        self._other.set(float(differ))

    def restarted(self) -> None:
        """An engine was lost."""
        self._restarts.inc()

    def phases(self, started_s: float | None, first_s: float | None, last_s: float | None, tokens: int) -> None:
        """When a choice joined the batch and had its first and last token (seconds, monotonic); how many tokens."""
        if first_s is None or last_s is None:
            return
        if started_s is not None:
            self._prefill.observe(max(first_s - started_s, 0.0))
        self._decode.observe(last_s - first_s)
        if tokens > 1:
            self._per_token.observe((last_s - first_s) / (tokens - 1))

    def shadowed(self, kl_nats: float, agreement: float, acceptance: float) -> None:
        """The reference has read an answer: where the running scores stand."""
        self._shadowed.inc()
        self._kl.set(kl_nats)
        self._agreement.set(agreement)
        self._quality.set(acceptance)

    def quality_baseline(self, acceptance: float) -> None:
        """The score that the variant had when it was evaluated."""
        self._baseline.set(acceptance)

    def second_look_lost(self) -> None:
        """A sampled answer could not be looked at twice."""
        self._lost.inc()

    def drifting(self, layer: str, psi: float, clip_ratio: float) -> None:
        """Where the inputs of one layer stand."""
        self._psi.labels(*self._labels, layer).set(psi)
        self._clip.labels(*self._labels, layer).set(clip_ratio)

    def drift_alarm(self, on: bool) -> None:
        """Whether traffic has left what was calibrated."""
        self._drifted.set(on)

    def ready(self, value: bool) -> None:
        """Whether /ready answers 200."""
        self._ready.set(value)

    def text(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, about: str, *more: str) -> Counter:
        return Counter(name, about, (*_LABELS, *more), registry=self._registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(name, about, _LABELS, registry=self._registry).labels(*self._labels)

    def _histogram(self, name: str, about: str, edges: tuple[float, ...]) -> Histogram:
        return Histogram(name, about, _LABELS, buckets=edges, registry=self._registry).labels(*self._labels)
