"""The examples of docs/scale-out.md: documents of the kinds they say, fields of the right names, Python that parses."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import qtool.cli.serve as command

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "scale-out.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


DOCUMENTS: list[dict[str, Any]] = [yaml.safe_load(text) for text in blocks("yaml")]


def of_kind(kind: str) -> dict[str, Any]:
    """The one document of that kind."""
    (found,) = (document for document in DOCUMENTS if document.get("kind") == kind)
    return found


def test_the_route_splits_all_of_the_traffic() -> None:
    route = of_kind("HTTPRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    (rule,) = route["spec"]["rules"]
    assert set(rule) <= {"matches", "filters", "backendRefs", "timeouts", "name"}
    assert [set(backend) for backend in rule["backendRefs"]] == [{"name", "port", "weight"}] * 2
    assert sum(backend["weight"] for backend in rule["backendRefs"]) == 10
    assert rule["matches"][0]["path"]["type"] in ("Exact", "PathPrefix", "RegularExpression")
    assert re.fullmatch(r"\d+(h|m|s|ms)", rule["timeouts"]["request"])
    assert {parent["name"] for parent in route["spec"]["parentRefs"]} == {"public"}


def test_the_autoscaler_asks_for_a_series_that_the_server_has() -> None:
    scaler = of_kind("HorizontalPodAutoscaler")
    assert scaler["apiVersion"] == "autoscaling/v2"
    spec = scaler["spec"]
    assert set(spec) == {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics"}
    assert 0 < spec["minReplicas"] <= spec["maxReplicas"]
    (metric,) = spec["metrics"]
    assert metric["type"] == "Pods"
    assert set(metric["pods"]) == {"metric", "target"}
    assert isinstance(metric["pods"]["target"]["averageValue"], str)  # a quantity
    served = Path(command.__file__).parents[1] / "serve" / "watching" / "metrics.py"
    assert f'"{metric["pods"]["metric"]["name"]}"' in served.read_text(encoding="utf-8")


def test_ray_serves_the_class_of_the_module() -> None:
    (config,) = (document for document in DOCUMENTS if "applications" in document)
    (application,) = config["applications"]
    assert set(config) <= {"proxy_location", "http_options", "grpc_options", "logging_options", "applications"}
    assert set(application) <= {"name", "route_prefix", "import_path", "runtime_env", "args", "deployments"}
    (deployment,) = application["deployments"]
    assert {"name", "max_ongoing_requests", "max_queued_requests", "autoscaling_config"} == set(deployment)
    (program,) = blocks("python")
    tree = ast.parse(program)
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert classes == {deployment["name"]}
    assert application["import_path"].partition(":")[2] in {
        name.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name)
    }


@pytest.mark.parametrize("line", [line for text in blocks("console") for line in text.splitlines()])
def test_commands_have_options_that_exist(line: str) -> None:
    source = Path(command.__file__).read_text(encoding="utf-8")
    for option in re.findall(r"--([a-z-]+)", line):
        assert re.search(rf"\b{option.replace('-', '_')}: Annotated|\"--{option}\"", source), option
