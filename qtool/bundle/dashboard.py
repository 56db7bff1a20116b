"""The Grafana dashboard of one served variant, as plain data."""

from qtool.bundle.settings import DeploySettings

_ALL = "sum by (le) (rate({name}_bucket{{{where}}}[5m]))"


def dashboard(settings: DeploySettings) -> dict[str, object]:
    """A dashboard of ten panels over the metrics that `qtool serve` exports."""
    where = 'model="$model",variant="$variant"'
    rate = f"sum by (class) (rate(qtool_requests_total{{{where}}}[5m]))"
    tokens = f"sum(rate(qtool_generation_tokens_total{{{where}}}[5m]))"
    panels = [
        _panel("Requests a second by outcome", "reqps", [(rate, "{{class}}")]),
        _panel(
            "Request duration", "s", _quantiles("qtool_request_duration_seconds", where), limit=settings.alert_seconds
        ),
        _panel("Time to first token", "s", _quantiles("qtool_time_to_first_token_seconds", where)),
        _panel("Time between tokens", "s", _quantiles("qtool_inter_token_latency_seconds", where)),
        _panel("Time in the queue", "s", _quantiles("qtool_request_queue_time_seconds", where)),
        _panel(
            "Running and waiting",
            "short",
            [
                (f"sum(qtool_requests_running{{{where}}})", "running"),
                (f"sum(qtool_requests_waiting{{{where}}})", "waiting"),
            ],
            limit=float(settings.max_queue),
        ),
        _panel("Output tokens a second", "short", [(tokens, "tokens/s")]),
        _panel(
            "Agreement with the reference",
            "percentunit",
            [
                (f"min(qtool_quality_score{{{where}}})", "now"),
                (f"max(qtool_quality_baseline{{{where}}})", "when evaluated"),
            ],
        ),
        _panel("Drift of layer inputs (PSI)", "short", [(f"max by (layer) (qtool_drift_psi{{{where}}})", "{{layer}}")]),
        _panel("Ready replicas", "short", [(f"sum(qtool_ready{{{where}}})", "ready")]),
    ]
    for index, panel in enumerate(panels):
        panel["id"] = index + 1
        panel["gridPos"] = {"h": 8, "w": 12, "x": 12 * (index % 2), "y": 8 * (index // 2)}
    return {
        "title": f"{settings.model} ({settings.variant})",
        "uid": f"qtool-{settings.slug}"[:40],
        "tags": ["qtool"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _values("model", settings.model), _values("variant", settings.variant)]},
        "panels": panels,
    }


def _quantiles(name: str, where: str) -> list[tuple[str, str]]:
    rates = _ALL.format(name=name, where=where)
    return [(f"histogram_quantile({q}, {rates})", f"p{100 * q:g}") for q in (0.5, 0.95, 0.99)]


def _panel(title: str, unit: str, queries: list[tuple[str, str]], *, limit: float | None = None) -> dict[str, object]:
    steps: list[dict[str, object]] = [{"color": "green", "value": None}]
    if limit is not None:
        steps.append({"color": "red", "value": limit})
    style = {"thresholdsStyle": {"mode": "line" if limit is not None else "off"}}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": style, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "targets": [
            {"refId": chr(65 + index), "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(queries)
        ],
    }


def _source() -> dict[str, object]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _values(name: str, value: str) -> dict[str, object]:
    """A list of what Prometheus knows under the label `name`, at first on `value`."""
    option = {"text": value, "value": value, "selected": True}
    query = f"label_values(qtool_ready, {name})"
    source = {"type": "prometheus", "uid": "${source}"}
    return {"name": name, "type": "query", "datasource": source, "query": query, "refresh": 2, "current": option}
