"""The files of `deploy/`: what starts the server in a container, a cluster or beside Prometheus and Grafana."""

import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from qtool.bundle.dashboard import dashboard
from qtool.bundle.settings import DeploySettings

_TEMPLATES = (
    "Dockerfile",
    "compose.yaml",
    "grafana-source.yaml",
    "keda.yaml",
    "kubernetes.yaml",
    "prometheus.yaml",
    "prometheus-rules.yaml",
    "servicemonitor.yaml",
)


def write_deploy(folder: Path, settings: DeploySettings) -> None:
    """Fills in every template of `deploy/` with measured numbers."""
    target = folder / "deploy"
    target.mkdir()
    for name in _TEMPLATES:
        (target / name).write_text(render(f"{name}.j2", asdict(settings)), encoding="utf-8")
    (target / "requirements.txt").write_text("".join(f"{line}\n" for line in pinned_packages()), encoding="utf-8")
    text = json.dumps(dashboard(settings), indent=2, sort_keys=True)
    (target / "grafana-dashboard.json").write_text(text + "\n", encoding="utf-8")


def pinned_packages() -> tuple[str, ...]:
    """`name==version` of everything qtool needs to run, as installed where the bundle was made; not of qtool itself."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    left = ["qtool"]
    while left:
        name = canonicalize_name(left.pop())
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # needed on another platform or Python only
        if name in found:
            continue
        found[name] = package.version.partition("+")[0]  # "+cpu" names the index it came from
        needs = (Requirement(text) for text in package.requires or ())
        left += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()) if name != "qtool")


def render(template: str, values: dict[str, object]) -> str:
    """A template of this package filled in; strings reach YAML as JSON strings, which cannot break out of it."""
    from jinja2 import Environment, StrictUndefined

    source = files("qtool.bundle").joinpath("templates", template).read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["quoted"] = lambda value: json.dumps(str(value))
    environment.filters["line"] = lambda value: " ".join(str(value).split())
    environment.filters["cell"] = _cell
    return environment.from_string(source).render(**values)


def _cell(value: object) -> str:
    """A Markdown table cell or paragraph that shows exactly `value`."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in ("\\", "`", "*", "_", "|", "[", "]"):
        text = text.replace(mark, f"\\{mark}")
    return text
