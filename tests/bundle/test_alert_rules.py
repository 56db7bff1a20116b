"""Every alert fires on the series it is for and on no other; by Prometheus' own promtool where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtool.serve.watching.metrics import Metrics

PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: it comes with Debian's package prometheus")
QUIET = {"qtool_ready": "1x240", "qtool_kernels_differ": "0x240", "qtool_drift_alarm": "0x240"}
# alert -> series by name and class, over four hours by the minute
FIRING: dict[str, dict[str, str]] = {
    "QtoolSlow": {
        'qtool_request_duration_seconds_bucket{le="0.01"}': "0x240",
        'qtool_request_duration_seconds_bucket{le="240"}': "0+60x240",
        'qtool_request_duration_seconds_bucket{le="+Inf"}': "0+60x240",
        "qtool_request_duration_seconds_count": "0+60x240",
    },
    "QtoolErrors": {
        'qtool_requests_total{class="server_error"}': "0+6x240",
        'qtool_requests_total{class="success"}': "0+60x240",
    },
    "QtoolShedding": {
        'qtool_requests_total{class="shed"}': "0+30x240",
        'qtool_requests_total{class="success"}': "0+60x240",
    },
    "QtoolQueueing": {
        'qtool_request_queue_time_seconds_bucket{le="0.01"}': "0x240",
        'qtool_request_queue_time_seconds_bucket{le="60"}': "0+60x240",
        'qtool_request_queue_time_seconds_bucket{le="+Inf"}': "0+60x240",
    },
    "QtoolNotReady": {"qtool_ready": "0x240"},
    "QtoolQualityBelowBaseline": {
        "qtool_quality_score": "0.9x240",
        "qtool_quality_baseline": "0.97x240",
        "qtool_shadow_answers_total": "0+10x240",
    },
    "QtoolDrift": {"qtool_drift_alarm": "1x240"},
    "QtoolOtherKernels": {"qtool_kernels_differ": "1x240"},
}


def rules(bundle: Path) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((bundle / "deploy" / "prometheus-rules.yaml").read_text())["groups"]
    return list(group["rules"])


def labelled(series: str, labels: dict[str, str]) -> str:
    """`series` with the labels of the model beside its own."""
    name, _, own = series.rstrip("}").partition("{")
    parts = [f'{key}="{value}"' for key, value in labels.items()] + ([own] if own else [])
    return f"{name}{{{', '.join(parts)}}}"


def model_labels(bundle: Path) -> dict[str, str]:
    found = re.search(r'model="(?P<model>[^"]+)",variant="(?P<variant>[^"]+)"', rules(bundle)[0]["expr"])
    assert found is not None
    return found.groupdict()


def test_every_alert_has_a_case_and_asks_for_series_that_the_server_has(made_bundle: Path) -> None:
    assert {rule["alert"] for rule in rules(made_bundle)} == set(FIRING)
    metrics = Metrics("m", "v", "f")
    known = {sample for family in metrics.registry.collect() for sample in (family.name, f"{family.name}_total")}
    for rule in rules(made_bundle):
        for name in re.findall(r"qtool_[a-z_]+", rule["expr"]):
            assert re.sub(r"_(bucket|count|sum)$", "", name) in known, f"{rule['alert']}: {name}"


@with_promtool
def test_promtool_reads_the_rules(made_bundle: Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "rules", "prometheus-rules.yaml"], cwd=made_bundle / "deploy", check=False
    )
    assert done.returncode == 0


@with_promtool
@pytest.mark.parametrize("alert", [*FIRING, "none"])
def test_an_alert_fires_on_its_series_alone(made_bundle: Path, tmp_path: Path, alert: str) -> None:
    assert PROMTOOL is not None
    labels = model_labels(made_bundle)
    series = QUIET | FIRING.get(alert, {})
    inputs = [{"series": labelled(name, labels), "values": values} for name, values in series.items()]
    expected = []
    for rule in rules(made_bundle):
        fired = (
            [{"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}] if rule["alert"] == alert else []
        )
        expected.append({"eval_time": "180m", "alertname": rule["alert"], "exp_alerts": fired})
    file = {
        "rule_files": [str(made_bundle / "deploy" / "prometheus-rules.yaml")],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": inputs, "alert_rule_test": expected}],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(file))
    done = subprocess.run([PROMTOOL, "test", "rules", "case.yaml"], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
