"""Who may import whom: the table of the design, held against the code."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "qtool"

# a layer may import itself and the layers to its left; stages never import each other
LAYERS = (
    {"errors", "records", "progress"},
    {"catalog", "store", "machine"},
    {"data", "models", "kernels", "reference", "formats"},
    {"streaming", "engine"},
    {"calibrate", "quantize", "evaluate", "latency", "report", "bundle", "serve"},
    {"pipeline"},
    {"front_door"},
    {"cli", "__main__"},
)
STAGES = LAYERS[4]
# a bundle joins and judges the run's parts again, so that it ships what they say now: it asks the report's own rule
# DESIGN: reference models are found by models/locate; models is told apart from reference's own training code
ALLOWED_WITHIN_LAYER = {
    ("models", "reference"),
    ("kernels", "models"),
    ("kernels", "formats"),
    ("bundle", "report"),
    ("data", "models"),
    ("data", "reference"),
    ("formats", "models"),
    ("models", "formats"),
}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else "qtool"


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("qtool"):
            if node.module == "qtool":
                found |= {f"qtool.{alias.name}" for alias in node.names if alias.name != "__version__"}
            else:
                found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("qtool.")}
    return found


def _layer(part: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if part in names)


def test_no_module_imports_a_layer_above_it_or_another_stage() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        importer = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if importer == "__init__":
            continue
        if path.parent == PACKAGE / "reference" and path.stem != "__init__":
            continue  # training and measuring the reference models is a program of its own, above the stages
        for module in sorted(_imports(path)):
            imported = _part(module)
            if imported == importer or (importer, imported) in ALLOWED_WITHIN_LAYER:
                continue
            above = _layer(imported) > _layer(importer)
            sideways = _layer(imported) == _layer(importer) and (importer in STAGES or _layer(importer) == 2)
            if above or sideways:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert wrong == []


def test_names_say_something() -> None:
    empty_words = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
    assert [path.name for path in PACKAGE.rglob("*.py") if path.stem in empty_words] == []


@pytest.mark.parametrize("module", ["qtool.cli.app", "qtool.records.report", "qtool.store.codec", "qtool.report.stage"])
def test_torch_is_not_loaded_by(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
