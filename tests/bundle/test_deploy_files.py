"""What an operator runs: images that can be pulled, names that match, the model as a volume."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from qtool.bundle.deploy import pinned_packages
from qtool.errors import MismatchError
from qtool.front_door.shipping import verify

IMAGE = re.compile(
    r"(?:[a-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:[._-][a-z0-9]+)*(?:/[a-z0-9]+(?:[._-][a-z0-9]+)*)*:[\w][\w.-]{0,127}",
    re.ASCII,
)


def _parts(bundle: Path, name: str) -> list[Any]:
    return list(yaml.safe_load_all((bundle / "deploy" / name).read_text()))


def _images(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["image"]] if isinstance(value.get("image"), str) else []
        return own + [image for each in value.values() for image in _images(each)]
    return [image for each in value for image in _images(each)] if isinstance(value, list) else []


def test_every_image_is_a_reference_that_can_be_pulled(made_bundle: Path):
    found = [image for name in ("kubernetes.yaml", "compose.yaml") for image in _images(_parts(made_bundle, name))]
    assert len(found) == 4
    for image in found:
        assert IMAGE.fullmatch(image), image


def test_labels_ports_and_volumes_name_each_other(made_bundle: Path):
    kinds = {part["kind"]: part for part in _parts(made_bundle, "kubernetes.yaml")}
    deployment, service = kinds["Deployment"]["spec"], kinds["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    for selector in (
        deployment["selector"]["matchLabels"],
        service["selector"],
        kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        _parts(made_bundle, "servicemonitor.yaml")[0]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (server,) = deployment["template"]["spec"]["containers"]
    ports = {port["name"] for port in server["ports"]}
    probes = [server[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {*probes, *(port["targetPort"] for port in service["ports"])} == ports
    volumes = {volume["name"]: volume for volume in deployment["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in server["volumeMounts"]} == set(volumes)
    claim = volumes["bundle"]["persistentVolumeClaim"]["claimName"]
    assert claim == kinds["PersistentVolumeClaim"]["metadata"]["name"]
    for other in (kinds["HorizontalPodAutoscaler"], _parts(made_bundle, "keda.yaml")[0]):
        assert other["spec"]["scaleTargetRef"]["name"] == kinds["Deployment"]["metadata"]["name"]


def test_the_model_is_no_part_of_the_image(made_bundle: Path):
    lines = (made_bundle / "deploy" / "Dockerfile").read_text().splitlines()
    copied = [line for line in lines if line.startswith(("COPY", "ADD"))]
    assert all("requirements.txt" in line or "--from=build" in line for line in copied)
    assert any(line == "VOLUME /bundle" for line in lines)


def test_compose_mounts_files_that_exist(made_bundle: Path):
    (compose,) = _parts(made_bundle, "compose.yaml")
    for service in compose["services"].values():
        for volume in service["volumes"]:
            assert (made_bundle / "deploy" / volume.split(":")[0]).exists()
    assert _parts(made_bundle, "grafana-source.yaml")[0]["datasources"][0]["url"] == "http://prometheus:9090"


def test_packages_are_pinned_as_installed_here(made_bundle: Path):
    import torch

    pinned = dict(line.split("==") for line in (made_bundle / "deploy" / "requirements.txt").read_text().split())
    assert pinned == dict(line.split("==") for line in pinned_packages())
    assert pinned["torch"] == torch.__version__.partition("+")[0]
    assert {"transformers", "tokenizers", "compressed-tensors", "fastapi", "starlette"} <= set(pinned)


def test_the_alert_is_made_of_a_measurement(made_bundle: Path):
    text = (made_bundle / "deploy" / "prometheus-rules.yaml").read_text()
    assert "measured at concurrency" in text


def test_the_card_is_what_the_hub_reads(made_bundle: Path):
    from huggingface_hub import ModelCard

    card = ModelCard.load(made_bundle / "README.md")
    assert card.data.pipeline_tag == "text-generation"
    assert card.data.license == "apache-2.0"
    assert [result.metric_value for result in card.data.eval_results or ()] != []
    assert "vllm serve ." in card.text


def test_sums_are_read_by_sha256sum(made_bundle: Path):
    done = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=made_bundle, check=False)
    assert done.returncode == 0


def test_verify_takes_an_edited_card_and_refuses_an_edited_weight(made_bundle: Path, tmp_path: Path):
    import shutil

    copy = Path(shutil.copytree(made_bundle, tmp_path / "copy"))
    (copy / "README.md").write_text("mine\n")
    found = verify(copy, quiet=True)
    assert found.documents == ("README.md",)
    assert found.prompts == 3
    assert "3 golden prompts reproduced by qtool" in found.table()
    assert verify(copy, backend="transformers", quiet=True).prompts == 3
    weights = next(copy.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(MismatchError, match="its SHA-256 is not the one"):
        verify(copy, quiet=True)
