"""What a bundle holds, why it was chosen, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from synthetic_run import evaluation

from qtool.bundle.deploy import write_deploy
from qtool.bundle.settings import deploy_settings, runtime_settings, slug
from qtool.bundle.stage import bundle
from qtool.errors import MismatchError, StoreError, UnknownName, UsageError
from qtool.progress import Silent
from qtool.records.bundle import Bundle
from qtool.records.evaluation import Evaluation, Interval
from qtool.records.report import Report
from qtool.records.variant import Variant
from qtool.report.stage import report
from qtool.store.codec import read_json
from qtool.store.digest import file_digest
from qtool.store.run_directory import write_record


def test_manifest_lists_every_file_with_its_digest(made_bundle: Path):
    manifest = read_json(Bundle, made_bundle / "bundle.json")
    there = {path.relative_to(made_bundle).as_posix() for path in made_bundle.rglob("*") if path.is_file()}
    assert {entry.path for entry in manifest.files} == there - {"bundle.json", "SHA256SUMS"}
    for entry in manifest.files:
        assert file_digest(made_bundle / entry.path) == entry.sha256
        assert (made_bundle / entry.path).stat().st_size == entry.bytes
    assert {"README.md", "report.html", "variant.json", "tokenizer.json", "deploy/Dockerfile"} <= there
    assert "calibration/calibration.json" in there


def test_golden_prompts_are_those_that_were_evaluated(made_bundle: Path):
    manifest = read_json(Bundle, made_bundle / "bundle.json")
    assert len(manifest.golden) == 3
    for golden in manifest.golden:
        assert len(golden.top_ids) == len(golden.top_logprobs) == 5
        assert list(golden.top_logprobs) == sorted(golden.top_logprobs, reverse=True)
        assert golden.greedy_ids
        assert golden.tolerance > 0


def test_settings_follow_the_measurements(made_bundle: Path):
    manifest = read_json(Bundle, made_bundle / "bundle.json")
    assert manifest.chosen.startswith("recommended: Ship w8a16")
    assert manifest.runtime.max_batch == 8
    assert manifest.runtime.memory_bytes == 240_000_000
    assert manifest.runtime.e2e_ms_p99 is None
    assert manifest.report_row is not None
    assert manifest.report_row.variant == manifest.variant


def test_deployment_files_are_valid_and_filled_in(made_bundle: Path):
    deploy = made_bundle / "deploy"
    kinds = {part["kind"]: part for part in yaml.safe_load_all((deploy / "kubernetes.yaml").read_text())}
    assert set(kinds) == {
        "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "PersistentVolumeClaim"
    }  # fmt: skip
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    assert server["resources"]["requests"]["memory"] == "312M"
    assert server["startupProbe"]["httpGet"]["path"] == "/ready"
    assert server["livenessProbe"]["httpGet"]["path"] == "/health"
    assert pod["terminationGracePeriodSeconds"] > 45 + 15 - 1
    rules = yaml.safe_load((deploy / "prometheus-rules.yaml").read_text())["groups"][0]["rules"]
    assert "> 0.18 " in rules[0]["expr"]  # the highest quantile that was measured, four times
    dashboard = json.loads((deploy / "grafana-dashboard.json").read_text())
    assert len(dashboard["panels"]) == 10
    assert "USER 10001" in (deploy / "Dockerfile").read_text()


def test_every_metric_in_rules_and_dashboard_is_exported(made_bundle: Path):
    import re

    from qtool.serve.supervision.messages import Beat
    from qtool.serve.watching.metrics import Metrics

    class Idle:
        running = waiting = steps = 0
        beat = Beat()

    metrics = Metrics("m", "v", "f")
    metrics.follow(Idle())
    metrics.drifting("layer", 0.0, 0.0)  # a series a layer, from the first look on
    exported = set(re.findall(r"^(qtool_\w+)", metrics.text().decode(), re.MULTILINE))
    for name in ("prometheus-rules.yaml", "grafana-dashboard.json"):
        asked = set(re.findall(r"\b(qtool_\w+)\{", (made_bundle / "deploy" / name).read_text().replace('\\"', '"')))
        assert asked
        assert asked <= exported | {"qtool_generation_tokens_total"}


def test_strings_do_not_break_out_of_yaml(tmp_path: Path, made_run: Path):
    row = read_json(Report, made_run / "report.json").rows[1]
    row = replace(row, variant=replace(row.variant, name='w8 "x"}\n- evil: {'))
    runtime = runtime_settings(row, dtype="float32", context_tokens=64)
    write_deploy(tmp_path, deploy_settings(row, runtime, model='m: "\n# {', qtool_version="1"))
    for name in ("kubernetes.yaml", "prometheus-rules.yaml"):
        assert all(yaml.safe_load_all((tmp_path / "deploy" / name).read_text()))
    json.loads((tmp_path / "deploy" / "grafana-dashboard.json").read_text())


@pytest.mark.parametrize(
    ("name", "expected"), [("Llama-3.1_8B!", "llama-3-1-8b"), ("***", "qtool-model"), ("a" * 90, "a" * 50)]
)
def test_slug_is_a_kubernetes_name(name: str, expected: str):
    assert slug(name) == expected


def test_model_card_says_scores_with_n_and_no_path_of_this_machine(made_bundle: Path):
    card = (made_bundle / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in yaml.safe_load(card.split("---")[1])  # the hub reads ids there, and this base has none
    assert "reference-64 (LlamaForCausalLM" in card
    assert "| PASS | 1000 |" in card
    assert str(Path.cwd()) not in card


def test_nothing_recommended_is_a_clear_error_and_can_be_overridden(run: Path):
    path = run / "evaluations" / "w8a16" / "arithmetic.json"
    found = replace(evaluation("w8a16", "arithmetic", 0.5), variant_digest=read_json(Evaluation, path).variant_digest)
    write_record(path, found)
    report(run, command="c")
    with pytest.raises(UsageError, match=r"recommends no variant.*--variant"):
        bundle(run, variant=None, output=None, progress=Silent())
    assert not (run / "bundle").exists()
    made = bundle(run, variant="w8a16", output=None, progress=Silent())
    assert made.chosen.startswith("named with --variant, not recommended: arithmetic: FAIL")
    assert read_json(Bundle, run / "bundle" / "bundle.json") == made


def test_unknown_variant_and_missing_report_are_refused(run: Path, tmp_path: Path):
    with pytest.raises(UnknownName, match="w8a16"):
        bundle(run, variant="w8a61", output=None, progress=Silent())
    (run / "report.json").unlink()
    with pytest.raises(StoreError, match="qtool report"):
        bundle(run, variant=None, output=None, progress=Silent())
    with pytest.raises(StoreError, match="no such folder"):
        bundle(tmp_path / "nothing", variant=None, output=None, progress=Silent())


def test_weights_that_were_not_evaluated_are_refused_and_nothing_is_left(run: Path):
    weights = next((run / "variants" / "w8a16").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(bytes(content))
    with pytest.raises(MismatchError, match="not those that were evaluated"):
        bundle(run, variant=None, output=None, progress=Silent())
    assert [path.name for path in run.iterdir() if path.name.startswith("bundle")] == []


def test_a_variant_made_again_after_the_report_is_refused(run: Path):
    manifest = run / "variants" / "w8a16" / "variant.json"
    write_record(manifest, replace(read_json(Variant, manifest), weights_digest="0" * 64))
    with pytest.raises(MismatchError, match="answered by other weights"):
        bundle(run, variant=None, output=None, progress=Silent())


def test_verdicts_come_from_the_evaluations_whatever_the_report_says(run: Path):
    found = evaluation("w8a16", "arithmetic", 0.5)
    path = run / "evaluations" / "w8a16" / "arithmetic.json"
    digest = read_json(Evaluation, path).variant_digest
    write_record(path, replace(found, variant_digest=digest))
    written = run / "report.json"
    report(run, command="c")
    honest = written.read_text()
    written.write_text(honest.replace('"FAIL"', '"PASS"'))
    made = bundle(run, variant="w8a16", output=None, progress=Silent())
    assert made.report_row is not None
    assert made.report_row.overall == "FAIL"
    assert "FAIL" in (run / "bundle" / "report.html").read_text()


def test_an_evaluation_whose_verdict_is_better_than_its_numbers_is_refused(run: Path):
    path = run / "evaluations" / "w8a16" / "arithmetic.json"
    found = read_json(Evaluation, path)
    assert found.comparison is not None
    low = replace(found.comparison, interval=Interval(-0.3, -0.2, 0.9))
    write_record(path, replace(found, comparison=low))
    with pytest.raises(MismatchError, match="arithmetic of w8a16 says PASS, which is not what its numbers give"):
        bundle(run, variant=None, output=None, progress=Silent())


def test_an_existing_bundle_is_kept_unless_replaced(run: Path):
    (run / "bundle").mkdir()
    with pytest.raises(StoreError, match="already exists; make it again with --replace"):
        bundle(run, variant=None, output=None, progress=Silent())
    bundle(run, variant=None, output=None, progress=Silent(), replace=True)
    assert (run / "bundle" / "bundle.json").is_file()
